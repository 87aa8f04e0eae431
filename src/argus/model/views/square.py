"""One square tile: the picture stretched, padded or cropped to the encoder's size.

`pad` is LLaVA-1.5's `expand2square` (the border takes the mean colour), `crop` is CLIP's resize and centre crop, `stretch`
ignores the aspect ratio. A picture that already has the size passes through untouched.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import Layout, Places, Tile, Tiles, View
from argus.model.views.resize import as_bytes, placed, resized

MEAN_COLOUR = (122, 116, 104)  # CLIP's mean, as in LLaVA-1.5


class SquareOptions(Options):
    """How other aspect ratios become square."""

    mode: Literal["pad", "crop", "stretch"] = Field("pad", description="pad with the mean colour, crop the centre, or stretch")


class Square(View):
    """One tile."""

    Options = SquareOptions
    options: SquareOptions

    def __call__(self, picture: Image.Image, size: int) -> Tiles:
        width, height = picture.size
        box, pixels = self.frame(width, height), as_bytes(picture)
        if self.options.mode == "pad":
            side = max(width, height)
            pixels = placed(pixels, (side, side), ((side - width) // 2, (side - height) // 2), MEAN_COLOUR)
        elif self.options.mode == "crop":
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            pixels = pixels[top : top + side, left : left + side]
        return Tiles(resized(pixels, (size, size))[None], [Tile("whole", 0, 0, box)])

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        if self.options.mode == "stretch":
            return 0.0, 0.0, 1.0, 1.0
        side = (max if self.options.mode == "pad" else min)(width, height)
        left, top = (abs(width - side) // 2, abs(height - side) // 2)
        if self.options.mode == "pad":
            left, top = -left, -top
        return left / width, top / height, (left + side) / width, (top + side) / height

    def count(self, width: int, height: int, size: int) -> int:
        return 1

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        return (Places(np.arange(grid[0] * grid[1])),)
