"""Ferret-UI's halves (Ferret-UI: Grounded Mobile UI Understanding with Multimodal LLMs, arXiv 2404.05719).

A screen is stretched onto two tiles, one above the other where it is upright and side by side where it is wide, and the whole
screen, stretched to one tile, comes first. The tiles are read in the raster order of the screen, without separators:
N + 2 N tokens, 1728 at 576 a tile.

The paper names the two grids; the released code chooses by LLaVA-NeXT's rule among five (1x2, 2x1, 2x2, 3x1, 1x3), so that common
phones never get two halves. `grids: paper` is the default, `release` is for the released weights. `base` has the whole alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import Layout
from argus.model.views.grid import Grid, choose
from argus.model.views.tiled import Cut, Tiled, by_row, by_tile, raster

GRIDS: dict[str, tuple[Grid, ...]] = {"paper": ((1, 2), (2, 1)), "release": ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))}


class FerretUIOptions(Options):
    """Which grids."""

    grids: Literal["paper", "release", "base"] = Field(
        "paper", description="two halves; the released code's five; only the whole"
    )


class FerretUI(Tiled):
    """Whole screen first, then its halves."""

    Options = FerretUIOptions
    options: FerretUIOptions

    def cut(self, width: int, height: int, size: int) -> Cut:
        if self.options.grids == "base":
            return Cut((1, 1), (size, size), whole="none")
        grid = choose("best_fit", width, height, size, GRIDS[self.options.grids])
        return Cut(grid, (grid[0] * size, grid[1] * size))

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        cut = self.cut(width, height, size)
        parts = by_row(raster(cut.first_part, cut.grid, grid), newline=False)
        return (by_tile(0, grid), parts) if cut.whole == "first" else (parts,)
