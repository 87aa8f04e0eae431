"""Carries out reductions: between decoder layers the sequence is whole, inside a layer only survivors take part.

A forward pre-hook on each decoder layer asks the reducers scheduled there, cuts the layer's inputs down to the
survivors (`layer_run`, `layer_cut`), and tells the layer's KV cache which positions it gets (`kept_cache`). A forward hook puts
the output back into a sequence of full length, with zeros where tokens are gone. So everything outside - the loop
over layers, recorded hidden states, the head, labels, `logits_to_keep` - stays aligned with `input_ids`, and no
modelling code is copied.

Where nothing is dropped, nothing is touched: the model computes exactly what it computes without a technique.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import Watch, watch
from argus.methods.encoded import Encoder
from argus.methods.kept_cache import KeptLayer, kept_layer
from argus.methods.layer_run import Run
from argus.methods.reduction.base import Reducer, Rows, Step, everything
from argus.model.anatomy.base import Anatomy, Listener, VisualTokens


@dataclass(slots=True)
class Record:
    """What one reducer kept in front of one layer: (T,) bool over the visual tokens, and which were still there."""

    layer: int
    tokens: VisualTokens
    present: Tensor
    kept: Tensor


class LayerPlan:
    """All reducers attached to one model, in order of their layers, with the hooks that carry them out."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.encoder = Encoder(anatomy)
        self.reducers: dict[Reducer, list[Record]] = {}
        self.own_hooks: dict[Reducer, list[Listener]] = {}
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
        self.own_hooks[reducer] = reducer.hooks(self.anatomy, lambda: self.run)
        self._schedule()

    def remove(self, reducer: Reducer) -> None:
        """Takes a reducer away; with the last one all hooks go."""
        del self.reducers[reducer]
        for hook in self.own_hooks.pop(reducer):
            hook.remove()
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
        marked = any(self.own_hooks.values())
        self.run = Run(None, torch.empty(0), torch.empty(0), marked=marked)
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
        self.run = Run(tokens, everything(tokens), real, found, marked=marked)
        for records in self.reducers.values():
            records.clear()

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.run = None

    # -- one layer

    def enter(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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
                self._watch = watch(self.anatomy.decoder_attention(index), lambda call: run.listen(self.rows[index], call))
        held = cache.layers[index] if cache is not None and index < len(cache.layers) else None
        if run.cut is None and run.bias is None and not isinstance(held, KeptLayer) and not (run.marked and run.tokens):
            return None
        if cache is not None:
            held = kept_layer(cache, index, run.whole(past, hidden))
        kwargs = {**kwargs, **run.inputs(self.anatomy, hidden, kwargs, held)}
        if run.cut is None:
            return args, kwargs
        hidden = run.cut.take(hidden)
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def leave(self, output: Any, length: int) -> Any:
        """Puts a layer's output (B, L, D) back into a sequence (B, S, D)."""
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        run = self.run
        if run is None or run.cut is None or output is None:
            return None
        return run.cut.put(output, length)

    # -- what a reducer sees and does

    def _step(self, run: Run, index: int, reducer: Reducer, hidden: Tensor) -> None:
        tokens = run.tokens
        assert tokens is not None

        def patches(kind: Literal["cls", "received"]) -> Tensor:
            return torch.cat([e.crop_scores(kind, g) for e, g in run.encoded])

        def fingerprints() -> Tensor:
            return torch.cat([e.fingerprint(g) for e, g in run.encoded]).to(tokens.crop.device)[tokens.crop]

        step = Step(index, tokens, run.present, hidden, run.real, lambda rows: run.attention[rows], patches, fingerprints)
        bias = reducer.bias(step)
        if bias is not None:
            placed = torch.zeros(run.real.shape, dtype=bias.dtype, device=bias.device)
            placed = placed.index_put((tokens.item, tokens.column), bias)
            run.bias = placed if run.bias is None else run.bias + placed
        kept = reducer.keep(step) & run.present
        self.reducers[reducer].append(Record(index, tokens, run.present, kept))
        item, column = tokens.leaving(run.present, kept)
        run.present = kept
        if not len(item):
            return
        renumber = reducer.options.positions == "consecutive" and not self.anatomy.mrope
        run.without(item, column, drop=reducer.options.apply == "drop", renumber=renumber)


def _layer_hooks(plan: LayerPlan, index: int) -> tuple[Any, Any]:
    """Hooks of one layer. The length of the whole chunk is noted on the way in, for the way out."""
    length = [0]

    def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        length[0] = (args[0] if args else kwargs["hidden_states"]).shape[1]
        return plan.enter(index, args, kwargs)

    def leave(layer: nn.Module, args: Any, output: Any) -> Any:
        return plan.leave(output, length[0])

    return enter, leave
