"""One pass of a chunk of the sequence through the decoder layers: who is still there, and what each layer is given.

Positions. With `original`, survivors keep (cos, sin) of their place. With `consecutive`, a position moves forward by
the number of tokens dropped before it, in this chunk and in the cache, and (cos, sin) come from the model's own
rotary module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import AttentionCall, attention_rows, mean_attention
from argus.methods.encoded import Encoding
from argus.methods.kept_cache import KeptLayer, Layout, Shift
from argus.methods.layer_cut import Cut, cut_mask, cut_of, cut_rotary, with_bias
from argus.methods.reduction.base import Reducer, Rows, Step, text_rows
from argus.model.anatomy.base import Anatomy, VisualTokens
from argus.model.backbones.positional import Rows as Chosen


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
        marked: whether layouts say which keys are visual tokens.
        layout: of the keys that the layer which runs now sees, where the layer was given inputs of its own.
        prompt: without a KV cache, the first column that was generated; None where none is known to be.
        lasting: (B,) bool, whose token of a decoding step stays in the caches from this layer on; None for all.
        ids: (B, S) token ids, where the chunk has visual tokens.
        positions: position ids that the language model was given.
    """

    tokens: VisualTokens | None
    present: Tensor
    real: Tensor
    encoded: list[tuple[Encoding, int]] = field(default_factory=list)
    there: Tensor | None = None
    seen: Tensor | None = None
    bias: Tensor | None = None
    cut: Cut | None = None
    shift: Tensor | None = None
    shifts: list[tuple[int, Tensor]] = field(default_factory=list)
    attention: dict[Rows, Tensor] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict)
    marked: bool = False
    layout: Layout | None = None
    prompt: int | None = None
    lasting: Tensor | None = None
    ids: Tensor | None = None
    positions: Tensor | None = None

    def step(self, layer: int, hidden: Tensor, alone: Callable[..., Any]) -> Step:
        """What a reducer sees in front of a layer."""
        tokens, ids, encoded = self.tokens, self.ids, self.encoded
        assert tokens is not None  # reducers are asked about chunks with visual tokens, which have ids
        assert ids is not None

        def patches(kind: Literal["cls", "received"]) -> Tensor:
            return torch.cat([e.crop_scores(kind, g) for e, g in encoded])

        def fingerprints() -> Tensor:
            return torch.cat([e.fingerprint(g) for e, g in encoded]).to(tokens.crop.device)[tokens.crop]

        read = (self.attention.__getitem__, patches, fingerprints)
        return Step(layer, tokens, self.present, hidden, self.real, *read, ids, self.positions, alone)

    def whole(self, length: int, like: Tensor) -> Layout:
        """The layout of a cache layer that holds all of the `length` columns before this chunk."""
        if ("whole", length) not in self.memo:
            columns = torch.arange(length, device=like.device).expand(len(like), -1)
            self.memo["whole", length] = Layout(columns, length)
        return self.memo["whole", length]

    def without(self, item: Tensor, column: Tensor, drop: bool, renumber: bool) -> None:
        """From here on, these positions leave the sequence (or stay in it, unseen), and others move forward."""
        leaving = torch.zeros_like(self.real)
        leaving[item, column] = True
        everywhere = torch.ones_like(self.real)
        self.there = everywhere if self.there is None else self.there
        self.seen = (everywhere if self.seen is None else self.seen) & ~leaving
        if drop:
            self.there = self.there & ~leaving
        self.cut = cut_of(self.there, self.seen)
        if renumber:
            moved = leaving.cumsum(1)
            self.shift = moved if self.shift is None else self.shift + moved
            self.shifts = [*self.shifts, (int(column.max()), moved[:, -1])]

    def forget(self, reducers: Sequence[Reducer], layer: int, hidden: Tensor, past: int | None) -> None:
        """Asks reducers which generated tokens go on being seen: the one behind a cache, or those of a sequence without one.

        Args:
            hidden: (B, S, D) input of the layer.
            past: columns in the layer's cache; None without a cache.
        """
        step = past is not None and past > 0 and hidden.shape[1] == 1 and self.tokens is None
        first = 0 if step else self.prompt if past is None else None
        if first is None:
            return
        for reducer in reducers:
            kept = reducer.keep_generated(layer, hidden[:, first:])  # (B, G)
            if kept is None or bool(kept.all()):
                continue
            if step:
                self.lasting = kept[:, 0] if self.lasting is None else kept[:, 0] & self.lasting
                continue
            item, column = (~kept[:, :-1]).nonzero(as_tuple=True)
            if len(item):
                self.without(item, column + first, drop=reducer.options.apply == "drop", renumber=False)

    def inputs(self, anatomy: Anatomy, hidden: Tensor, kwargs: dict[str, Any], held: KeptLayer | None) -> dict[str, Any]:
        """The layer's rotary embeddings, position ids and mask; its cache is told which columns it gets."""
        layout = held.layout if held is not None else None
        # Of the tensors in the key, the memo keeps a reference, so that their ids stay theirs.
        key = (id(self.cut), id(layout), id(kwargs.get("attention_mask")), id(self.bias))
        if key not in self.memo:
            changed, after = self._cut_inputs(anatomy, hidden, kwargs, layout)
            self.memo[key] = changed, after, (self.cut, layout, kwargs.get("attention_mask"), self.bias)
        changed, after, _ = self.memo[key]
        self.layout = after
        if held is not None:
            held.layout = after
        return changed

    def _cut_inputs(
        self, anatomy: Anatomy, hidden: Tensor, kwargs: dict[str, Any], layout: Layout | None
    ) -> tuple[dict[str, Any], Layout]:
        batch, length = hidden.shape[:2]
        ids = kwargs.get("position_ids")
        keys = torch.arange(length, device=hidden.device).expand(batch, -1) if self.cut is None else self.cut.columns
        queries, ragged, past = keys.shape[1], self.cut is not None and self.cut.ragged, 0
        shift, shifts = self.shift, tuple[Shift, ...]()
        if layout is not None:
            past, ragged = layout.length, ragged or layout.ragged
            keys = torch.cat([layout.columns, torch.where(keys < 0, keys, keys + past)], dim=1)
            before = layout.shift()
            if before is not None:
                shift = before[:, None].expand(-1, length) if shift is None else shift + before[:, None]
            shifts = (*layout.shifts, *(Shift(past, past + last, by) for last, by in self.shifts))
        flash = "flash" in str(anatomy.language_model.config._attn_implementation)
        if flash and ids is not None and kwargs.get("attention_mask") is None and bool((ids.diff(dim=-1) < 0).any()):
            raise UnsupportedError("several sequences packed into one row cannot be reduced with flash attention.")
        mask = cut_mask(kwargs.get("attention_mask"), self.cut, keys, ragged or self.bias is not None, queries, flash)
        if self.bias is not None:
            if layout is not None or flash or mask is None:
                raise UnsupportedError(
                    "a soft mask is for training: it needs a kernel that takes one, and no KV cache.",
                    hint="Use attn_implementation sdpa or eager, and use_cache=False.",
                )
            bias = self.bias if self.cut is None else self.cut.take(self.bias)
            mask = with_bias(mask, bias, hidden.dtype)
        changed: dict[str, Any] = {"attention_mask": mask}
        if shift is not None:
            if ids is None:
                raise UnsupportedError("renumbering needs position ids, which this model's decoder layers do not get.")
            moved = ids - shift  # (B, S)
            moved = moved if self.cut is None else self.cut.take(moved)
            changed["position_embeddings"] = anatomy.rotary(hidden, moved)
        elif self.cut is not None:
            changed["position_embeddings"] = cut_rotary(kwargs["position_embeddings"], self.cut)
        if ids is not None:
            # Flash kernels take a jump in position ids for a border between packed sequences.
            changed["position_ids"] = None if flash else ids if self.cut is None else self.cut.take(ids)
        if self.cut is not None:
            there = self.cut.columns >= 0
            changed |= {name: given.cut(self.cut.take, there) for name, given in kwargs.items() if isinstance(given, Chosen)}
        visual = self._visual(hidden, layout) if self.marked else None
        return changed, Layout(keys, past + length, ragged, shifts, visual)

    def _visual(self, hidden: Tensor, before: Layout | None) -> Tensor:
        """(B, L) bool: which of the keys, those of the cache first, are visual tokens."""
        batch, length = hidden.shape[:2]
        own = torch.zeros(batch, length, dtype=torch.bool, device=hidden.device)
        if self.tokens is not None:
            own = self.tokens.mask(batch, length)
        if self.cut is not None:
            own = self.cut.take(own) & (self.cut.columns >= 0)
        if before is None:
            return own
        held = torch.zeros_like(before.columns, dtype=torch.bool) if before.visual is None else before.visual
        return torch.cat([held, own], dim=1)

    @torch.no_grad()
    def listen(self, wanted: set[Rows], call: AttentionCall) -> None:
        """Reads the wanted rows of a layer's attention, aligned with the chunk: (B, H, S)."""
        real, tokens = self.real, self.tokens
        assert tokens is not None
        alive = real if self.seen is None else real & self.seen
        for rows in wanted:
            if rows == "last":
                last = torch.arange(real.shape[1], device=real.device).masked_fill(~real, -1).max(1).values
                where = last if self.cut is None else (self.cut.columns == last[:, None]).int().argmax(1)
                attention = attention_rows(call, where[:, None])[:, :, 0]  # (B, H, K)
            else:
                chosen = text_rows(tokens, real) if rows == "text" else tokens.mask(*real.shape)
                weights = (chosen & alive).float()
                if self.bias is not None:
                    weights = weights * self.bias.exp()  # who is half gone counts half
                if self.cut is not None:
                    weights = self.cut.take(weights) * (self.cut.columns >= 0)
                attention = mean_attention(call, weights)
            attention = attention[:, :, attention.shape[2] - call.query.shape[2] :]  # the chunk's own keys
            if self.cut is not None:
                attention = self.cut.put(attention.transpose(1, 2), real.shape[1]).transpose(1, 2)
            self.attention[rows] = attention
