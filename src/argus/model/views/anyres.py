"""LLaVA-NeXT's AnyRes (LLaVA-NeXT: Improved reasoning, OCR, and world knowledge, 2024) and BlueLM-V-3B's relaxed matching
(arXiv 2411.10640).

The picture is scaled to fit the chosen grid without changing its aspect ratio, padded, and cut; the whole picture, stretched
to one tile, comes first. The tiles' tokens are put together to one large map, rows that show padding alone are cut away
(unpadding), and a learned vector ends every row.

    whole: N tokens; then h rows of w tokens and a newline

The grids are those of the released model: 2x1, 1x2, 2x2, 1x3, 3x1 (columns x rows). Resize, padding and unpadding follow the
published processor and packing to the pixel: sizes are rounded up, an odd padding is larger on the right and below, and rows
are counted from the original aspect ratio, rounded at the seventh digit. With `rule: relaxed` and `max_tiles: 9` it is
BlueLM-V's view; what that paper does with a picture of one tile is not published: `whole_of_one` says whether the whole is
shown beside it.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import NEWLINE, Layout, Places
from argus.model.views.grid import Grid, Rule, choose, grids
from argus.model.views.tiled import Cut, Tiled, by_row, by_tile, raster

Side = Annotated[int, Field(ge=1, le=64)]
RELEASED: tuple[Grid, ...] = ((2, 1), (1, 2), (2, 2), (1, 3), (3, 1))


class AnyResOptions(Options):
    """Which grids, which rule, and how rows end."""

    grids: tuple[tuple[Side, Side], ...] = Field(
        RELEASED, min_length=1, description="candidates [columns, rows], in order of ties"
    )
    max_tiles: int | None = Field(None, ge=1, le=64, description="all grids of up to so many tiles, instead of `grids`")
    rule: Rule = Field("best_fit", description="best_fit: LLaVA-NeXT; relaxed: BlueLM-V; closest: InternVL; area_weighted: NVLM")
    alpha: float = Field(0.1, ge=0, lt=1, description="tolerance of relaxed matching")
    newline: bool = Field(True, description="a learned vector ends every row of the tiles' map")
    unpad: bool = Field(True, description="rows and columns that show padding alone have no tokens")
    whole_of_one: bool = Field(True, description="show the whole picture beside a grid of one tile")


class AnyRes(Tiled):
    """Whole picture first, then the tiles' map row by row."""

    Options = AnyResOptions
    options: AnyResOptions
    reads_rows = True

    def __init__(self, options: AnyResOptions) -> None:
        super().__init__(options)
        self.learned = (NEWLINE,) if options.newline else ()

    def cut(self, width: int, height: int, size: int) -> Cut:
        options = self.options
        candidates = grids(options.max_tiles) if options.max_tiles else options.grids
        grid = choose(options.rule, width, height, size, candidates, options.alpha)
        canvas = (grid[0] * size, grid[1] * size)
        scale_x, scale_y = canvas[0] / width, canvas[1] / height
        if scale_x < scale_y:
            fitted = (canvas[0], min(math.ceil(height * scale_x), canvas[1]))
        else:
            fitted = (min(math.ceil(width * scale_y), canvas[0]), canvas[1])
        offset = ((canvas[0] - fitted[0]) // 2, (canvas[1] - fitted[1]) // 2)
        whole = "first" if grid != (1, 1) or options.whole_of_one else "none"
        return Cut(grid, fitted, offset, whole=whole)  # type: ignore[arg-type]

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        cut = self.cut(width, height, size)
        cells = raster(cut.first_part, cut.grid, grid)  # (h, w)
        if self.options.unpad:
            high, wide = cells.shape
            if width / height > wide / high:
                blank = (high - int(round(height * (wide / width), 7))) // 2
                cells = cells[blank : high - blank]
            else:
                blank = (wide - int(round(width * (high / height), 7))) // 2
                cells = cells[:, blank : wide - blank]
        head: tuple[Places, ...] = (by_tile(0, grid),) if cut.whole == "first" else ()
        return (*head, by_row(cells, self.options.newline))
