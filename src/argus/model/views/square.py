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
        box = (0.0, 0.0, 1.0, 1.0)
        if width != height and self.options.mode == "pad":
            side = max(width, height)
            left, top = (side - width) // 2, (side - height) // 2
            square = Image.new("RGB", (side, side), MEAN_COLOUR)
            square.paste(picture, (left, top))
            box = (-left / width, -top / height, (side - left) / width, (side - top) / height)
            picture = square
        elif width != height and self.options.mode == "crop":
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            box = (left / width, top / height, (left + side) / width, (top + side) / height)
            picture = picture.crop((left, top, left + side, top + side))
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        return Tiles(np.asarray(picture)[None], [Tile("whole", 0, 0, box)])

    def count(self, width: int, height: int, size: int) -> int:
        return 1

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        return (Places(np.arange(grid[0] * grid[1])),)
