"""What views of several tiles share: a picture is resized onto a canvas of columns x rows tiles, cut row by row, and shown as a
whole beside them.

A subclass says how (`cut`) and in which order its tokens are read: tile by tile (`by_tile`), or in the raster order of the whole
canvas (`by_row`), each row perhaps with a learned vector behind it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from argus.model.views.base import NEWLINE, Places, Tile, Tiles, View
from argus.model.views.grid import Grid
from argus.model.views.resize import Filter, as_bytes, placed, resized

Whole = Literal["first", "last", "none"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How a picture is cut.

    Args:
        grid: columns and rows of tiles.
        fitted: width and height in pixels to which the picture is resized.
        offset: where it lies on the canvas (x, y).
        whole: whether the whole picture is a tile, in front of the others or behind them.
        colour: of the canvas around it.
        resample: filter of the resize.
        whole_of_canvas: the whole is the canvas, padding included, instead of the picture.
        whole_fitted: width and height to which the whole is resized, in the corner of its tile; the tile's own when not given.
    """

    grid: Grid
    fitted: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    whole: Whole = "first"
    colour: tuple[int, int, int] = (0, 0, 0)
    resample: Filter = "bicubic"
    whole_of_canvas: bool = False
    whole_fitted: tuple[int, int] | None = None

    @property
    def parts(self) -> int:
        """Tiles without the whole."""
        return self.grid[0] * self.grid[1]

    @property
    def tiles(self) -> int:
        """All tiles."""
        return self.parts + (self.whole != "none")

    @property
    def first_part(self) -> int:
        """Number of the first tile that is no whole."""
        return int(self.whole == "first")

    @property
    def whole_tile(self) -> int:
        """Number of the whole; -1 for none."""
        return {"first": 0, "last": self.parts, "none": -1}[self.whole]


class Tiled(View):
    """Subclasses implement `cut` and `layout`."""

    tiled = True

    @abstractmethod
    def cut(self, width: int, height: int, size: int) -> Cut:
        """How a picture of this size is cut into tiles of side `size`."""

    def count(self, width: int, height: int, size: int) -> int:
        return self.cut(width, height, size).tiles

    def whole(self, width: int, height: int, size: int) -> int:
        cut = self.cut(width, height, size)
        return 0 if cut.tiles == 1 else cut.whole_tile

    def __call__(self, picture: Image.Image, size: int) -> Tiles:
        width, height = picture.size
        cut = self.cut(width, height, size)
        columns, rows = cut.grid
        canvas_size = (columns * size, rows * size)
        source = as_bytes(picture)
        canvas = placed(resized(source, cut.fitted, cut.resample), canvas_size, cut.offset, cut.colour)
        parts = canvas.reshape(rows, size, columns, size, 3).swapaxes(1, 2)  # (r, c, s, s, 3)
        pixels = np.empty((cut.tiles, size, size, 3), dtype=np.uint8)
        pixels[cut.first_part : cut.first_part + cut.parts].reshape(parts.shape)[:] = parts
        # The canvas on the picture, in relative units of the picture.
        left, top = -cut.offset[0] / cut.fitted[0], -cut.offset[1] / cut.fitted[1]
        wide, high = size / cut.fitted[0], size / cut.fitted[1]
        tiles = [
            Tile("part", r, c, (left + c * wide, top + r * high, left + (c + 1) * wide, top + (r + 1) * high))
            for r in range(rows)
            for c in range(columns)
        ]
        if cut.whole != "none":
            inner = cut.whole_fitted or (size, size)
            small = resized(canvas if cut.whole_of_canvas else source, inner, cut.resample if cut.whole_fitted else "bicubic")
            pixels[cut.whole_tile] = placed(small, (size, size), (0, 0), cut.colour)
            box = (left, top, left + columns * wide, top + rows * high) if cut.whole_of_canvas else (0.0, 0.0, 1.0, 1.0)
            x, y = size / inner[0], size / inner[1]  # how much further than the picture the tile goes
            box = (box[0], box[1], box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1]))
            tiles.insert(cut.whole_tile, Tile("whole", 0, 0, box))
        return Tiles(pixels, tiles)


def by_tile(tile: int, grid: tuple[int, int]) -> Places:
    """The cells of one tile."""
    area = grid[0] * grid[1]
    return Places(np.arange(tile * area, (tile + 1) * area))


def raster(first: int, shape: Grid, grid: tuple[int, int]) -> np.ndarray:
    """Cells (rows, columns) of a canvas whose tiles are numbered from `first`.

    Args:
        shape: columns and rows of tiles.
        grid: rows and columns of cells of a tile.
    """
    columns, rows = shape
    cells = np.arange(rows * columns * grid[0] * grid[1]).reshape(rows, columns, *grid)  # (r, c, h, w)
    return cells.swapaxes(1, 2).reshape(rows * grid[0], columns * grid[1]) + first * grid[0] * grid[1]


def by_row(cells: np.ndarray, newline: bool) -> Places:
    """Cells (rows, columns) row by row, with or without a learned vector behind each row."""
    if newline:
        cells = np.concatenate([cells, np.full((len(cells), 1), NEWLINE)], axis=1)
    return Places(cells.ravel())
