"""What an encoder gives: patch tokens with their grid, and whatever else later parts may want to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class VisualFeatures:
    """Features of a batch of tiles (B tiles of one size).

    Args:
        tokens: (B, N, C) patch tokens of the selected layer, in raster order; N = rows * columns.
        grid: (rows, columns) of the patch grid.
        cls: (B, C) CLS token of the selected layer, where the encoder has one.
        prefix: (B, P, C) all prefix tokens (CLS, registers), where there are any.
        cls_attention: (B, heads, N) attention of the CLS query on the patches in the block that made `tokens`: one row of
            the softmax over all keys, not renormalised. Only when asked for.
        hidden_states: all layers' states (B, P + N, C), embeddings first. Only when asked for.
        feature_maps: (B, C_i, H_i, W_i) per stage, for convolutional encoders.
        pooled: (B, C) the picture as a whole, behind the last layer, as contrastive training reads it. Only when asked for.
    """

    tokens: Tensor
    grid: tuple[int, int]
    cls: Tensor | None = None
    prefix: Tensor | None = None
    cls_attention: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    feature_maps: tuple[Tensor, ...] | None = None
    pooled: Tensor | None = None

    def some(self, patches: Tensor) -> Tensor:
        """Tokens (B, k, C) of some patches (B, k) of each tile, in their order."""
        return self.tokens.gather(1, patches[..., None].expand(-1, -1, self.tokens.shape[-1]))

    @classmethod
    def join(cls, passes: Sequence[VisualFeatures]) -> VisualFeatures:
        """Features of all tiles, from those of some at a time."""
        first = passes[0]

        def along(name: str) -> Any:
            values = [getattr(one, name) for one in passes]
            if isinstance(values[0], Tensor):
                return torch.cat(values)
            return None if values[0] is None else tuple(torch.cat(level) for level in zip(*values, strict=True))

        return cls(grid=first.grid, **{f.name: along(f.name) for f in fields(cls) if f.name != "grid"})
