"""What views of several tiles share: a picture is resized onto a canvas of columns x rows tiles, cut row by row, and shown as a
whole beside them.

A subclass says how (`cut`) and in which order its tokens are read: tile by tile (`by_tile`), or in the raster order of the whole
canvas (`by_row`), each row perhaps with a learned vector behind it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import NEWLINE, Places, Tile, Tiles, View
from argus.model.views.grid import Grid

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
Box = tuple[float, float, float, float]
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
    resample: Image.Resampling = BICUBIC
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

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.reducing_gap: float | None = getattr(options, "reducing_gap", None)

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
        near, box = self._reduced(picture, cut.fitted)
        fitted = _resized(near, box, cut.fitted, cut.resample)
        canvas = fitted
        if cut.fitted != canvas_size:
            canvas = Image.new("RGB", canvas_size, cut.colour)
            canvas.paste(fitted, cut.offset)
        parts = np.asarray(canvas).reshape(rows, size, columns, size, 3).swapaxes(1, 2)  # (r, c, s, s, 3)
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
            source, extent = (canvas, (0.0, 0.0, *canvas.size)) if cut.whole_of_canvas else (near, box)
            inner = cut.whole_fitted or (size, size)
            pixels[cut.whole_tile] = cut.colour
            pixels[cut.whole_tile, : inner[1], : inner[0]] = np.asarray(
                _resized(source, extent, inner, cut.resample if cut.whole_fitted else BICUBIC, self.reducing_gap)
            )
            box = (left, top, left + columns * wide, top + rows * high) if cut.whole_of_canvas else (0.0, 0.0, 1.0, 1.0)
            x, y = size / inner[0], size / inner[1]  # how much further than the picture the tile goes
            box = (box[0], box[1], box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1]))
            tiles.insert(cut.whole_tile, Tile("whole", 0, 0, box))
        return Tiles(pixels, tiles)

    def _reduced(self, picture: Image.Image, wanted: tuple[int, int]) -> tuple[Image.Image, Box]:
        """The picture shrunk by whole factors to at least `reducing_gap` times the wanted size, and its extent in pixels.

        Both the tiles and the whole are made from it, so a large picture is read once.
        """
        width, height = picture.size
        gap = self.reducing_gap
        x, y = (max(1, int(a / b / gap)) if gap else 1 for a, b in zip(picture.size, wanted, strict=True))
        if x == y == 1:
            return picture, (0.0, 0.0, float(width), float(height))
        return picture.reduce((x, y)), (0.0, 0.0, width / x, height / y)


def _resized(
    picture: Image.Image, box: Box, size: tuple[int, int], resample: Image.Resampling, gap: float | None = None
) -> Image.Image:
    if picture.size == size and box[2:] == size:
        return picture
    return picture.resize(size, resample, box, gap)


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


def reducing_gap() -> Any:
    """The option that trades exact pixels for speed."""
    return Field(
        None,
        ge=1,
        description="shrink a large picture by an integer factor first, to no less than this many times the wanted size: "
        "faster, and not exact; pictures smaller than that are not touched. Exact when not given",
    )
