"""Carries out reductions: between decoder layers the sequence is whole, inside a layer only survivors take part.

A forward pre-hook on each decoder layer asks the reducers scheduled there (those of layer 0 are asked when the language model
gets its embeddings), cuts the layer's inputs down to the survivors (`layer_run`, `layer_cut`), and tells the layer's KV cache
which positions it gets (`kept_cache`). A forward hook puts
the output back into a sequence of full length, with zeros where tokens are gone. So everything outside - the loop
over layers, recorded hidden states, the head, labels, `logits_to_keep` - stays aligned with `input_ids`, and no
modelling code is copied.

Where nothing is dropped, nothing is touched: the model computes exactly what it computes without a technique.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import Watch, watch
from argus.methods.encoded import Encoder
from argus.methods.kept_cache import KeptLayer, kept_layer
from argus.methods.layer_run import Run
from argus.methods.reduction.base import Reducer, Rows, everything
from argus.methods.written import Written
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
        self.prompts: Tensor | None = None  # (B, S) bool, given where attention masks do not say what is a prompt
        self._seen: dict[str, Any] | None = None  # the root module's inputs, until its language model runs
        self._written = Written()
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
        if not self.anatomy.in_sequence:
            raise UnsupportedError(
                "this model reads pictures by cross-attention, so there are no visual tokens in its sequence to drop.",
                hint="Compose it with fusion 'hybrid', where the thumbnail is in the sequence, or 'decoder'.",
            )
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
        ids = kwargs.get("input_ids", args[0] if args else None)
        pictures = any(kwargs.get(name) is not None and len(kwargs[name]) for name in self.anatomy.picture_inputs)
        if pictures and ids is None:
            raise UnsupportedError("visual tokens are found by input_ids, and the model was given only embeddings.")
        prompt = self._written.prompt(ids, kwargs.get("past_key_values"))
        self._seen = None
        if pictures or prompt is not None:
            self._seen = {
                "input_ids": ids,
                "attention_mask": kwargs.get("attention_mask"),
                "pictures": pictures,
                "prompt": prompt,
            }

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen, self._seen = self._seen, None
        marked = any(self.own_hooks.values())
        self.run = Run(None, torch.empty(0), torch.empty(0), marked=marked)
        if seen is None:
            return None
        embeddings, prompt = kwargs["inputs_embeds"], seen["prompt"]
        mask = self.anatomy.visual_mask(seen["input_ids"])
        padding = seen["attention_mask"]
        real = torch.ones_like(mask)
        if padding is not None and padding.ndim == 2:
            real = padding[:, -mask.shape[1] :].bool()
        real = real if self.prompts is None else self.prompts
        mask = mask[:, :prompt] if prompt is not None else mask  # a placeholder's id may be generated by chance
        rows = embeddings[:, : mask.shape[1]][mask]  # (M, D)
        if not seen["pictures"] or not len(rows):
            self.run = Run(None, torch.empty(0), real, marked=marked, prompt=prompt)
            return None
        found = self.encoder.match(rows)
        tokens = self.anatomy.locate(mask, [e.pieces[g] for e, g in found])
        self.run = run = Run(tokens, everything(tokens), real, found, marked=marked, prompt=prompt)
        run.ids, run.positions = seen["input_ids"], kwargs.get("position_ids")
        for records in self.reducers.values():
            records.clear()
        hidden = embeddings
        for reducer in self.steps.get(0, ()):
            hidden = self._step(run, 0, reducer, hidden)
        return None if hidden is embeddings else (args, {**kwargs, "inputs_embeds": hidden})

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self.run = None

    # -- one layer

    def enter(self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Drops what leaves in front of layer `index`, and cuts its inputs."""
        run = self.run
        if run is None:
            return None
        given = hidden = args[0] if args else kwargs["hidden_states"]
        cache = kwargs.get("past_key_values")
        past = cache.get_seq_length(index) if cache is not None else 0
        if run.tokens is not None:
            for reducer in self.steps.get(index, ()) if index else ():  # those of layer 0 were asked in `_begin`
                hidden = self._step(run, index, reducer, hidden)
            if index in self.rows:
                self._watch = watch(self.anatomy.decoder_attention(index), lambda call: run.listen(self.rows[index], call))
        run.forget(self.steps.get(index, ()), index, hidden, past if cache is not None else None)
        held = cache.layers[index] if cache is not None and index < len(cache.layers) else None
        if run.cut is None and run.bias is None and not isinstance(held, KeptLayer) and not (run.marked and run.tokens):
            return None if hidden is given else _entering(args, kwargs, hidden)
        if cache is not None:
            held = kept_layer(cache, index, run.whole(past, hidden))
        kwargs = {**kwargs, **run.inputs(self.anatomy, hidden, kwargs, held)}
        return _entering(args, kwargs, hidden if run.cut is None else run.cut.take(hidden))

    def leave(self, index: int, output: Any, length: int, cache: Any) -> Any:
        """Puts a layer's output (B, L, D) back into a sequence (B, S, D), and lets its cache forget what nobody will look at."""
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        run = self.run
        if run is None or output is None:
            return None
        if run.lasting is not None:
            kept_layer(cache, index, run.whole(cache.get_seq_length(index), run.lasting)).forget(run.lasting)
        return None if run.cut is None else run.cut.put(output, length)

    # -- what a reducer sees and does

    def _alone(self, inputs_embeds: Tensor, **inputs: Any) -> Any:
        """The language model on other embeddings, while a pass is under way; for those who count or listen, no call of it."""
        outer, self.run = self.run, None
        try:
            return self.anatomy.language_model.forward(inputs_embeds=inputs_embeds, use_cache=False, **inputs)
        finally:
            self.run = outer

    def _step(self, run: Run, index: int, reducer: Reducer, hidden: Tensor) -> Tensor:
        """Lets a reducer act; returns what enters the layer, whole."""
        step = run.step(index, hidden, self._alone)
        tokens, rewritten = step.tokens, reducer.rewrite(step)
        hidden = hidden if rewritten is None else rewritten
        bias = reducer.bias(step)
        if bias is not None:
            placed = torch.zeros(run.real.shape, dtype=bias.dtype, device=bias.device)
            placed = placed.index_put((tokens.item, tokens.column), bias)
            if tokens.breaks is not None:  # as open as the most open token of its line
                placed = placed.index_put((tokens.breaks[:, 0], tokens.breaks[:, 1]), tokens.by_line(bias))
            run.bias = placed if run.bias is None else run.bias + placed
        kept = reducer.keep(step) & run.present
        self.reducers[reducer].append(Record(index, tokens, run.present, kept))
        item, column = tokens.leaving(run.present, kept)
        run.present = kept
        if not len(item):
            return hidden
        renumber = reducer.options.positions == "consecutive" and not self.anatomy.mrope
        run.without(item, column, drop=reducer.options.apply == "drop", renumber=renumber)
        return hidden


def _entering(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> Any:
    """A layer's arguments with other hidden states."""
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def _layer_hooks(plan: LayerPlan, index: int) -> tuple[Any, Any]:
    """Hooks of one layer. The length of the whole chunk and the cache are noted on the way in, for the way out."""
    noted: list[Any] = [0, None]

    def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        noted[:] = (args[0] if args else kwargs["hidden_states"]).shape[1], kwargs.get("past_key_values")
        return plan.enter(index, args, kwargs)

    def leave(layer: nn.Module, args: Any, output: Any) -> Any:
        length, cache = noted
        noted[1] = None
        return plan.leave(index, output, length, cache)

    return enter, leave
