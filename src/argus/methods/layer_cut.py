"""One decoder layer's inputs, cut down to the positions that still take part.

The language model hands every layer the inputs of the whole sequence: hidden states, rotary (cos, sin), position ids,
attention mask. A layer that runs on fewer positions needs the rows, and of the mask also the columns, of those
positions. `columns` (B, L) says which; items that kept fewer than L are padded with -1 on the left, and padding is
masked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Cut:
    """Which positions of a chunk of S tokens take part.

    Args:
        columns: (B, L) positions in the chunk, ascending; -1 is a place that nothing looks at.
        ragged: whether there is any -1.
    """

    columns: Tensor
    ragged: bool

    def take(self, x: Tensor) -> Tensor:
        """(B | 1, S, ...) -> (B, L, ...)."""
        items = torch.arange(len(self.columns), device=x.device) if len(x) > 1 else self.columns.new_zeros(1)
        return x[items[:, None], self.columns.clamp(min=0)]

    def put(self, x: Tensor, length: int) -> Tensor:
        """(B, L, D) -> (B, S, D) with zeros at positions that do not take part."""
        index = self.columns % (length + 1)  # padding goes to an extra place behind the end
        out = x.new_zeros(len(x), length + 1, x.shape[-1])
        return out.scatter(1, index[..., None].expand(-1, -1, x.shape[-1]), x)[:, :length]


def cut_of(there: Tensor, seen: Tensor) -> Cut:
    """The cut that takes the positions that are `there` (B, S), of which only those also `seen` can be looked at."""
    longest = max(1, int(there.sum(1).max()))  # layers cannot run on nothing: one place stays, unseen
    order = there.int().argsort(dim=1, stable=True)[:, there.shape[1] - longest :]  # (B, L), those there last
    visible = (there & seen).gather(1, order)
    ragged = not bool(visible.all())
    return Cut(order.masked_fill(~visible, -1) if ragged else order, ragged)


def cut_rotary(embeddings: tuple[Tensor, Tensor], cut: Cut) -> tuple[Tensor, Tensor]:
    """(cos, sin), each (B | 1, S, d) or (3, B | 1, S, d) -> the cut's rows."""
    cos, sin = (
        cut.take(e) if e.ndim == 3 else torch.stack([cut.take(axis) for axis in e])  # axes of mRoPE
        for e in embeddings
    )
    return cos, sin


def cut_mask(mask: Tensor | None, cut: Cut | None, keys: Tensor, ragged: bool, queries: int, flash: bool) -> Tensor | None:
    """The attention mask of a layer that holds `keys` and asks with the positions of `cut`.

    Args:
        mask: the whole sequence's: None (causal), (B, K) padding, or (B | 1, H | 1, S, K) bool or additive float.
        cut: the queries; None for all S.
        keys: (B, L_k) columns of the whole sequence that the layer holds, the chunk's own last; -1 cannot be seen.
        ragged: whether there may be any -1, so that the mask has to be written out.
        queries: L, how many positions ask.
        flash: the kernel takes (B, K) padding masks.
    """
    batch, width = keys.shape
    if mask is None:
        if not ragged:
            return None  # any subset of a causal sequence, in order, is causal
        if flash:
            return keys >= 0
        rows = keys[:, width - queries :]  # the chunk's own keys are the queries' columns
        visible = (keys[:, None, :] <= rows[..., None]) & (keys >= 0)[:, None, :]  # (B, L, L_k)
        return _see_self(visible[:, None], cut, width)
    real = keys >= 0
    index = keys.clamp(min=0)
    if mask.ndim == 2:
        return mask.gather(1, index) * real
    mask = mask.expand(batch, -1, -1, -1)
    if cut is not None:
        rows = cut.columns.clamp(min=0)[:, None, :, None]
        mask = mask.gather(2, rows.expand(-1, mask.shape[1], -1, mask.shape[3]))  # (B, H, L, K)
    mask = mask.gather(3, index[:, None, None, :].expand(-1, mask.shape[1], mask.shape[2], -1))  # (B, H, L, L_k)
    if not ragged:
        return mask
    hidden = torch.finfo(mask.dtype).min if mask.is_floating_point() else False
    return _see_self(mask.masked_fill(~real[:, None, None, :], hidden), cut, width)


def _see_self(mask: Tensor, cut: Cut | None, width: int) -> Tensor:
    """Lets queries that nobody looks at see themselves, so that no row of the softmax is empty."""
    if cut is None or not cut.ragged:
        return mask
    length = cut.columns.shape[1]
    own = torch.arange(width, device=mask.device) == torch.arange(width - length, width, device=mask.device)[:, None]
    free = own & (cut.columns < 0)[:, None, :, None]  # (B, 1, L, L_k)
    return mask.masked_fill(free, 0.0 if mask.is_floating_point() else True)


def with_bias(mask: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """A 4-D mask made additive, plus a bias (B, L_k) on each key."""
    if not mask.is_floating_point():
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    return mask + bias[:, None, None, :].to(dtype)
