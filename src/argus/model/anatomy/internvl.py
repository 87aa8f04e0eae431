"""InternVL as transformers writes it: pictures in tiles, InternViT with CLS, pixel shuffle, per-token MLP.

A picture is cut into tiles of one size, row by row, and its thumbnail follows as the last crop. Pixel shuffle lays windows of
2 x 2 patches onto each other, so a tile of 2h x 2w patches has h x w tokens. A tile's tokens stand in raster order, a picture's
tiles behind one another; the model is not told which tiles belong together, but between two pictures there is always text.
A video's frames, each between its own words, are pictures of one crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from argus.model.anatomy.base import Crop, Piece, VisualTokens
from argus.model.anatomy.llava import Llava


class InternVL(Llava):
    """InternVL 2 to 3.5 (`InternVLForConditionalGeneration`); every tile, the thumbnail and every video frame is a crop."""

    connector_mixes = True

    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        """One per tile."""
        rows, columns = self._patches(inputs)
        side = self._window
        return [Piece(tile, 0, (rows // side, columns // side)) for tile in range(len(inputs["pixel_values"]))]

    def locate(self, mask: Tensor, pieces: Sequence[Piece]) -> VisualTokens:
        """Tiles with nothing between them are one picture's."""
        tokens = super().locate(mask, pieces)
        first = torch.ones_like(tokens.crop, dtype=torch.bool)
        first[1:] = tokens.crop[1:] != tokens.crop[:-1]
        item, column = tokens.item[first], tokens.column[first]
        continued = ((column > 0) & mask[item, (column - 1).clamp(min=0)]).tolist()
        crops: list[Crop] = []
        for crop, goes_on in zip(tokens.crops, continued, strict=True):
            last = crops[-1] if crops and crops[-1].item == crop.item else None
            if last is None:
                crops.append(replace(crop, image=0, tile=0))
            elif goes_on:
                crops.append(replace(crop, image=last.image, tile=last.tile + 1))
            else:
                crops.append(replace(crop, image=last.image + 1, tile=0))
        return replace(tokens, crops=tuple(crops))

    def patches_per_call(self, inputs: Mapping[str, Any], keys: int) -> int:
        rows, columns = self._patches(inputs)
        return rows * columns

    def token_scores(self, patch_scores: list[Tensor], inputs: Mapping[str, Any]) -> Tensor:
        """Mean over the window of patches that a token is made of."""
        (rows, columns), side = self._patches(inputs), self._window
        scores = super().token_scores(patch_scores, inputs)
        return scores.view(-1, rows // side, side, columns // side, side).mean((2, 4)).flatten()

    @property
    def _window(self) -> int:
        return round(1 / self.config.downsample_ratio)

    def _patches(self, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of a tile's patches."""
        height, width = inputs["pixel_values"].shape[-2:]
        high, wide = self.config.vision_config.patch_size
        return height // high, width // wide
