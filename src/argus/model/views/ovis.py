"""The tiles of Ovis 1.6 (Ovis: Structural Embedding Alignment for Multimodal Large Language Model, arXiv 2405.20797).

A picture is cut at its own size into a grid of crops, and each crop, like the whole picture in front of them, is scaled to fit a
square and padded. Five learned indicators say where what begins and ends.

    BEGIN whole BEHIND_WHOLE  crop COLUMN crop ROW crop COLUMN crop  END            a grid of 2 x 2
    positions = (1 + r c) M + 3 + r (c - 1) + (r - 1); of a picture that is not cut M + 3

The grid: of all with up to 9 crops, those count whose crops keep more than 0.9 of the picture's pixels when each is shrunk to a
long side of `size` (none is enlarged); of them the one with the fewest crops, then the one that keeps most. Where there is none,
the one that keeps most, then the one with the fewest. Of equals the one with fewer rows is taken. Crops have whole pixels, and
the last of a row or column has the rest.

M is the connector's: for `ovis` with `framed: false` and `stride: 2`, as released, 196 for SigLIP's 27 x 27 patches at 384 px.
There the indicators are the last five rows of the visual embedding table, which no patch can choose; here they are the view's own
vectors, so that every connector can have them. The published code pads with zeros behind the normalisation, here the colour is
CLIP's mean; it compares shares in floating point, here they are exact, so that equals are equal. `max_tiles` and `threshold`
are that code's.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from PIL import Image
from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import BEGIN, BEHIND_WHOLE, COLUMN, END, ROW, Layout, Places, Tile, Tiles, View
from argus.model.views.grid import Grid, grids
from argus.model.views.resize import as_bytes, placed, resized
from argus.model.views.square import MEAN_COLOUR
from argus.model.views.tiled import by_tile

Pixels = tuple[int, int, int, int]  # left, top, right, bottom


class OvisOptions(Options):
    """How many crops, and what they must keep."""

    max_tiles: int = Field(9, ge=1, le=64, description="most crops, the whole not counted")
    threshold: float = Field(0.9, ge=0, le=1, description="share of the pixels that is enough")


class OvisView(View):
    """Whole picture, then crops, with indicators around and between them."""

    Options = OvisOptions
    options: OvisOptions
    learned = (BEGIN, BEHIND_WHOLE, COLUMN, ROW, END)
    tiled = True

    def cut(self, width: int, height: int, size: int) -> Grid:
        """Columns and rows of crops."""
        candidates = [g for g in grids(self.options.max_tiles) if g[0] <= width and g[1] <= height]
        kept = {grid: self.kept(width, height, size, grid) for grid in candidates}
        enough = [grid for grid in candidates if kept[grid] > self.options.threshold]
        if enough:
            return min(enough, key=lambda grid: (grid[0] * grid[1], -kept[grid], grid[1]))
        return min(candidates, key=lambda grid: (-kept[grid], grid[0] * grid[1], grid[1]))

    def kept(self, width: int, height: int, size: int, grid: Grid) -> Fraction:
        """Share of a picture's pixels that its crops keep."""
        columns, rows = grid
        wide, high = width // columns, height // rows
        last_wide, last_high = width - (columns - 1) * wide, height - (rows - 1) * high
        inner = (columns - 1) * ((rows - 1) * area(wide, high, size) + area(wide, last_high, size))
        return (inner + (rows - 1) * area(last_wide, high, size) + area(last_wide, last_high, size)) / (width * height)

    def __call__(self, picture: Image.Image, size: int) -> Tiles:
        width, height = picture.size
        grid = self.cut(width, height, size)
        parts = [] if grid == (1, 1) else crops(width, height, grid)
        boxes = [(0, 0, width, height), *parts]
        whole = as_bytes(picture)
        pixels = np.stack([padded(whole[y0:y1, x0:x1], size) for x0, y0, x1, y1 in boxes])
        shown = [framed(box, (width, height)) for box in boxes]
        places = [("part", *divmod(number, grid[0])) for number in range(len(parts))]
        tiles = [Tile(*place, box) for place, box in zip([("whole", 0, 0), *places], shown, strict=True)]
        return Tiles(pixels, tiles)

    def count(self, width: int, height: int, size: int) -> int:
        columns, rows = self.cut(width, height, size)
        return 1 if columns == rows == 1 else 1 + columns * rows

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        columns, rows = self.cut(width, height, size)
        spans = [_one(BEGIN), by_tile(0, grid), _one(BEHIND_WHOLE)]
        if columns * rows > 1:
            for tile in range(1, columns * rows + 1):
                behind = [] if tile == columns * rows else [_one(COLUMN if tile % columns else ROW)]
                spans += [by_tile(tile, grid), *behind]
        return (*spans, _one(END))

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        return framed((0, 0, width, height), (width, height))


def crops(width: int, height: int, grid: Grid) -> list[Pixels]:
    """Boxes of the crops in pixels, row by row."""
    wide, high = width // grid[0], height // grid[1]
    across = [(c * wide, width if c == grid[0] - 1 else (c + 1) * wide) for c in range(grid[0])]
    down = [(r * high, height if r == grid[1] - 1 else (r + 1) * high) for r in range(grid[1])]
    return [(x0, y0, x1, y1) for y0, y1 in down for x0, x1 in across]


def fit(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height once the long side is `size`."""
    if width >= height:
        return size, max(1, int(height / width * size))
    return max(1, int(width / height * size)), size


def area(width: int, height: int, size: int) -> Fraction:
    """Pixels of a crop that is shrunk to fit, but never enlarged."""
    long = max(width, height)
    return Fraction(width * height * min(size, long) ** 2, long**2)


def padded(crop: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3): the crop (H, W, 3) as large as fits, in the middle."""
    wide, high = fit(crop.shape[1], crop.shape[0], size)
    return placed(resized(crop, (wide, high)), (size, size), ((size - wide) // 2, (size - high) // 2), MEAN_COLOUR)


def framed(box: Pixels, picture: tuple[int, int]) -> tuple[float, float, float, float]:
    """The relative box of a picture that a padded crop shows."""
    x0, y0, x1, y1 = box
    side, (width, height) = max(x1 - x0, y1 - y0), picture
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    return left / width, top / height, (left + side) / width, (top + side) / height


def _one(learned: int) -> Places:
    return Places(np.array([learned]))
