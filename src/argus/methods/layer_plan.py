"""Carries out reductions on a model: between decoder layers the sequence is whole, inside a layer only survivors take
part.

A forward pre-hook on each decoder layer asks the reducers scheduled there, cuts the layer's inputs down to the
survivors (`layer_cut`), and tells the layer's KV cache which positions it gets (`kept_cache`). A forward hook puts
the output back into a sequence of full length, with zeros where tokens are gone. So everything outside - the loop
over layers, recorded hidden states, the head, labels, `logits_to_keep` - stays aligned with `input_ids`, and no
modelling code is copied.

Positions. With `original`, survivors keep (cos, sin) of their place. With `consecutive`, a position moves forward by
the number of tokens dropped before it, in this chunk and in the cache, and (cos, sin) come from the model's own
rotary module.

Where nothing is dropped, nothing is touched: the model computes exactly what it computes without a technique.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import AttentionCall, Watch, attention_rows, mean_attention, watch
from argus.methods.encoded import Encoder
from argus.methods.kept_cache import KeptLayer, Layout, Shift, kept_layer
from argus.methods.layer_cut import Cut, cut_mask, cut_of, cut_rotary, with_bias
from argus.methods.reduction.base import Reducer, Rows, Step, everything, text_rows
from argus.model.anatomy.base import Anatomy, VisualTokens


@dataclass(slots=True)
class Record:
    """What one reducer kept in front of one layer: (T,) bool over the visual tokens, and which were still there."""

    layer: int
    tokens: VisualTokens
    present: Tensor
    kept: Tensor


@dataclass(slots=True)
class Run:
    """One forward pass of the language model over a chunk of S tokens.

    Args:
        tokens: the chunk's visual tokens; None where it has none.
        present: (T,) bool, which are still there.
        real: (B, S) bool, False at padding.
        encoded: the crops' (encoding, index), in the chunk's order.
        there, seen: (B, S) bool, positions that are still in the sequence, and that may still be looked at; None
            while all.
        cut: the same as indices.
        bias: (B, S) added to the attention logits of a key; None while zero.
        shift: (B, S) how far each position moves forward; None while none does.
        shifts: drops of this chunk that renumber.
        attention: rows -> (B, H, S) attention of the layer that just ran.
        memo: cut inputs, shared by layers that hold the same positions.
    """

    tokens: VisualTokens | None
    present: Tensor
    real: Tensor
    encoded: list[Any] = field(default_factory=list)
    there: Tensor | None = None
    seen: Tensor | None = None
    bias: Tensor | None = None
    cut: Cut | None = None
    shift: Tensor | None = None
    shifts: list[tuple[int, Tensor]] = field(default_factory=list)
    attention: dict[Rows, Tensor] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict)

    def whole(self, length: int, like: Tensor) -> Layout:
        """The layout of a cache layer that holds all of the `length` columns before this chunk."""
        if ("whole", length) not in self.memo:
            columns = torch.arange(length, device=like.device).expand(len(like), -1)
            self.memo["whole", length] = Layout(columns, length)
        return self.memo["whole", length]


class LayerPlan:
    """All reducers attached to one model, in order of their layers, with the hooks that carry them out."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.encoder = Encoder(anatomy)
        self.reducers: dict[Reducer, list[Record]] = {}
        self.run: Run | None = None
        self._seen: dict[str, Any] | None = None  # the root module's inputs, until its language model runs
        self._watch: Watch | None = None
        root, language_model = anatomy.root, anatomy.language_model
        self.hooks = [
            root.register_forward_pre_hook(self._root, with_kwargs=True),
            language_model.register_forward_pre_hook(self._begin, with_kwargs=True),
            language_model.register_forward_hook(self._end, always_call=True),
        ]
        for index, layer in enumerate(anatomy.layers):
            enter, leave = _layer_hooks(self, index)
            self.hooks.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
            self.hooks.append(layer.register_forward_hook(leave, prepend=True, always_call=True))

    def add(self, reducer: Reducer) -> None:
        """Adds a reducer; at one layer, reducers act in the order in which they were added."""
        reducer.check(self.anatomy)
        kernel = self.anatomy.language_model.config._attn_implementation
        if kernel == "flex_attention":
            raise UnsupportedError(
                "flex_attention builds its masks for whole sequences, and visual tokens cannot be dropped from them.",
                hint="Load the model with attn_implementation sdpa, eager or flash_attention_2.",
            )
        types = getattr(self.anatomy.language_model.config, "layer_types", None) or []
        if set(types) - {"full_attention"}:
            raise UnsupportedError(f"decoder layers of types {sorted(set(types))} do not all see the whole sequence.")
        self.reducers[reducer] = []
        self._schedule()

    def remove(self, reducer: Reducer) -> None:
        """Takes a reducer away; with the last one all hooks go."""
        del self.reducers[reducer]
        if self.reducers:
            self._schedule()
        else:
            self.close()

    def close(self) -> None:
        """Removes all hooks."""
        for hook in self.hooks:
            hook.remove()
        self.encoder.remove()

    def _schedule(self) -> None:
        """Lists, per layer, who acts there and which attention rows the layer before must give."""
        self.steps: dict[int, list[Reducer]] = {}
        self.rows: dict[int, set[Rows]] = {}
        self.encoder.kinds = {r.score.patches for r in self.reducers if r.score.patches is not None}
        self.encoder.fingerprinted = any(r.score.fingerprints for r in self.reducers)
        for reducer in self.reducers:
            for layer in reducer.layers(len(self.anatomy.layers)):
                self.steps.setdefault(layer, []).append(reducer)
                if reducer.score.attention:
                    self.rows.setdefault(layer - 1, set()).update(reducer.score.attention)

    # -- one forward pass

    def _root(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._seen = None
        if any(kwargs.get(name) is not None and len(kwargs[name]) for name in self.anatomy.picture_inputs):
            ids = kwargs.get("input_ids", args[0] if args else None)
            if ids is None:
                raise UnsupportedError("visual tokens are found by input_ids, and the model was given only embeddings.")
            self._seen = {"input_ids": ids, "attention_mask": kwargs.get("attention_mask")}

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen, self._seen = self._seen, None
        self.run = Run(None, torch.empty(0), torch.empty(0))
        if seen is None:
            return
        embeddings = kwargs["inputs_embeds"]
        mask = self.anatomy.visual_mask(seen["input_ids"])
        rows = embeddings[mask]  # (M, D)
        if not len(rows):
            return
        found = self.encoder.match(rows)
        tokens = self.anatomy.locate(mask, [e.pieces[g] for e, g in found])
        padding = seen["attention_mask"]
        real = torch.ones_like(mask)
        if padding is not None and padding.ndim == 2:
            real = padding[:, -mask.shape[1] :].bool()
        self.run = Run(tokens, everything(tokens), real, found)
        for records in self.reducers.values():
            records.clear()

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.run = None

    # -- one layer

    def enter(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Drops what leaves in front of layer `index`, and cuts the layer's inputs."""
        run = self.run
        if run is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        cache = kwargs.get("past_key_values")
        past = cache.get_seq_length(index) if cache is not None else 0
        if run.tokens is not None:
            for reducer in self.steps.get(index, ()):
                self._step(run, index, reducer, hidden)
            if index in self.rows:
                self._watch = watch(_attention(layer), lambda call: self._listen(run, self.rows[index], call))
        held = cache.layers[index] if cache is not None and index < len(cache.layers) else None
        if run.cut is None and run.bias is None and not isinstance(held, KeptLayer):
            return None
        if cache is not None:
            held = kept_layer(cache, index, run.whole(past, hidden))
        kwargs = {**kwargs, **self._inputs(run, hidden, kwargs, held)}
        if run.cut is None:
            return args, kwargs
        hidden = run.cut.take(hidden)
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def leave(self, index: int, output: Any, length: int) -> Any:
        """Puts a layer's output (B, L, D) back into a sequence (B, S, D)."""
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        run = self.run
        if run is None or run.cut is None or output is None:
            return None
        if isinstance(output, tuple):
            return (run.cut.put(output[0], length), *output[1:])
        return run.cut.put(output, length)

    def _inputs(self, run: Run, hidden: Tensor, kwargs: dict[str, Any], held: KeptLayer | None) -> dict[str, Any]:
        """The layer's rotary embeddings, position ids and mask; its cache is told which columns it gets."""
        layout = held.layout if held is not None else None
        # Of the tensors in the key, the memo keeps a reference, so that their ids stay theirs.
        key = (id(run.cut), id(layout), id(kwargs.get("attention_mask")), id(run.bias))
        if key not in run.memo:
            changed, after = self._cut_inputs(run, hidden, kwargs, layout)
            run.memo[key] = changed, after, (run.cut, layout, kwargs.get("attention_mask"), run.bias)
        changed, after, _ = run.memo[key]
        if held is not None:
            held.layout = after
        return changed

    def _cut_inputs(
        self, run: Run, hidden: Tensor, kwargs: dict[str, Any], layout: Layout | None
    ) -> tuple[dict[str, Any], Layout]:
        batch, length = hidden.shape[:2]
        ids = kwargs.get("position_ids")
        keys = torch.arange(length, device=hidden.device).expand(batch, -1) if run.cut is None else run.cut.columns
        queries, ragged, past = keys.shape[1], run.cut is not None and run.cut.ragged, 0
        shift, shifts = run.shift, tuple(Shift(last, last, by) for last, by in run.shifts)
        if layout is not None:
            past, ragged = layout.length, ragged or layout.ragged
            keys = torch.cat([layout.columns, torch.where(keys < 0, keys, keys + past)], dim=1)
            before = layout.shift()
            if before is not None:
                shift = before[:, None].expand(-1, length) if shift is None else shift + before[:, None]
            shifts = layout.shifts + tuple(Shift(past, past + last, by) for last, by in run.shifts)
        flash = "flash" in str(self.anatomy.language_model.config._attn_implementation)
        if flash and ids is not None and bool((ids.diff(dim=-1) < 0).any()):
            raise UnsupportedError("several sequences packed into one row cannot be reduced with flash attention.")
        mask = cut_mask(kwargs.get("attention_mask"), run.cut, keys, ragged or run.bias is not None, queries, flash)
        if run.bias is not None:
            if layout is not None or flash or mask is None:
                raise UnsupportedError(
                    "a soft mask is for training: it needs a kernel that takes one, and no KV cache.",
                    hint="Use attn_implementation sdpa or eager, and use_cache=False.",
                )
            bias = run.bias if run.cut is None else run.cut.take(run.bias)
            mask = with_bias(mask, bias, hidden.dtype)
        changed: dict[str, Any] = {"attention_mask": mask}
        if shift is not None:
            if ids is None:
                raise UnsupportedError("renumbering needs position ids, which this model's decoder layers do not get.")
            moved = ids - shift  # (B, S)
            moved = moved if run.cut is None else run.cut.take(moved)
            changed["position_embeddings"] = self.anatomy.rotary(hidden, moved)
        elif run.cut is not None:
            changed["position_embeddings"] = cut_rotary(kwargs["position_embeddings"], run.cut)
        if ids is not None:
            # Flash kernels take a jump in position ids for a border between packed sequences.
            changed["position_ids"] = None if flash else ids if run.cut is None else run.cut.take(ids)
        return changed, Layout(keys, past + length, ragged, shifts)

    # -- what a reducer sees and does

    def _step(self, run: Run, index: int, reducer: Reducer, hidden: Tensor) -> None:
        tokens = run.tokens
        assert tokens is not None

        def patches(kind: Literal["cls", "received"]) -> Tensor:
            return torch.cat([e.crop_scores(kind, g) for e, g in run.encoded])

        def fingerprints() -> Tensor:
            return torch.stack([e.fingerprints[g] for e, g in run.encoded]).to(tokens.crop.device)[tokens.crop]

        step = Step(index, tokens, run.present, hidden, run.real, lambda rows: run.attention[rows], patches, fingerprints)
        bias = reducer.bias(step)
        if bias is not None:
            placed = torch.zeros(run.real.shape, dtype=bias.dtype, device=bias.device)
            placed = placed.index_put((tokens.item, tokens.column), bias)
            run.bias = placed if run.bias is None else run.bias + placed
        kept = reducer.keep(step) & run.present
        self.reducers[reducer].append(Record(index, tokens, run.present, kept))
        gone = run.present & ~kept
        run.present = kept
        if not gone.any():
            return
        item, column = tokens.item[gone], tokens.column[gone]
        leaving = torch.zeros_like(run.real)
        leaving[item, column] = True
        everywhere = torch.ones_like(run.real)
        run.there = everywhere if run.there is None else run.there
        run.seen = (everywhere if run.seen is None else run.seen) & ~leaving
        if reducer.options.apply == "drop":
            run.there = run.there & ~leaving
        run.cut = cut_of(run.there, run.seen)
        if reducer.options.positions == "consecutive" and not self.anatomy.mrope:
            moved = leaving.cumsum(1)
            run.shift = moved if run.shift is None else run.shift + moved
            run.shifts = [*run.shifts, (int(column.max()), moved[:, -1])]

    @torch.no_grad()
    def _listen(self, run: Run, wanted: set[Rows], call: AttentionCall) -> None:
        """Reads the wanted rows of a layer's attention, aligned with the chunk: (B, H, S)."""
        real, tokens = run.real, run.tokens
        assert tokens is not None
        alive = real if run.seen is None else real & run.seen
        for rows in wanted:
            if rows == "last":
                last = torch.arange(real.shape[1], device=real.device).masked_fill(~real, -1).max(1).values
                where = last if run.cut is None else (run.cut.columns == last[:, None]).int().argmax(1)
                attention = attention_rows(call, where[:, None])[:, :, 0]  # (B, H, K)
            else:
                chosen = text_rows(tokens, real) if rows == "text" else tokens.mask(*real.shape)
                weights = (chosen & alive).float()
                if run.cut is not None:
                    weights = run.cut.take(weights) * (run.cut.columns >= 0)
                attention = mean_attention(call, weights)
            attention = attention[:, :, attention.shape[2] - call.query.shape[2] :]  # the chunk's own keys
            if run.cut is not None:
                attention = run.cut.put(attention.transpose(1, 2), real.shape[1]).transpose(1, 2)
            run.attention[rows] = attention


def _layer_hooks(plan: LayerPlan, index: int) -> tuple[Any, Any]:
    """Hooks of one layer. The length of the whole chunk is noted on the way in, for the way out."""
    length = [0]

    def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        length[0] = (args[0] if args else kwargs["hidden_states"]).shape[1]
        return plan.enter(index, layer, args, kwargs)

    def leave(layer: nn.Module, args: Any, output: Any) -> Any:
        return plan.leave(index, output, length[0])

    return enter, leave


def _attention(layer: Any) -> nn.Module:
    return layer.self_attn
