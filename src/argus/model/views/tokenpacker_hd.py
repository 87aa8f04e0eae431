"""TokenPacker-HD, the tiles of TokenPacker: Efficient Visual Projector for Multimodal LLM (arXiv 2407.02392).

A picture is scaled to fit a grid of tiles, keeping its aspect ratio, and laid in the upper left of a canvas of the mean colour.
Tiles are read row by row with a comma between those of a row and a line break behind each row, so that the flat sequence tells
its own shape; behind more than one tile comes the whole picture, fitted to one tile.

    v...v , v...v \\n v...v , v...v \\n whole \\n
    positions = (h w + 1) M + h (w - 1) + h + 1; of a single tile M + 1

Grids are all of up to 9, 16 or 25 tiles but single rows or columns of more than nine; `grid.overlap` is their rule. Comma and
line break are ordinary text in the language model's own tokens (the published code looks a raw newline up in the vocabulary,
where LLaMA's has none); the counts are those of a tokenizer that has one token for each. There the whole is made from the padded
canvas, at the size the picture alone would have, which squeezes the padding in: the released weights saw that, `whole_source:
canvas`; here it is the picture, as intended. The published code interpolates normalised numbers between four neighbours; here a
bilinear filter that smooths where it shrinks reads bytes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import Layout, Places, Text
from argus.model.views.grid import Grid, choose, grids
from argus.model.views.square import MEAN_COLOUR
from argus.model.views.tiled import Cut, Tiled, by_tile

LONGEST_LINE = 9  # tiles of a grid of one row or column
COMMA, BREAK = Text(","), Text("\n")


class TokenPackerHDOptions(Options):
    """How many tiles, and what is shown behind them."""

    max_tiles: int = Field(9, ge=1, le=64, description="most tiles, the whole not counted; 9, 16 or 25 in the paper")
    whole: bool = Field(True, description="show the whole picture behind several tiles")
    whole_source: Literal["picture", "canvas"] = Field(
        "picture", description="what the whole is made from; `canvas`, padding included, is what the released weights saw"
    )


class TokenPackerHD(Tiled):
    """Tiles row by row with separators in text, whole last."""

    Options = TokenPackerHDOptions
    options: TokenPackerHDOptions

    def cut(self, width: int, height: int, size: int) -> Cut:
        candidates = [g for g in grids(self.options.max_tiles) if min(g) > 1 or max(g) <= LONGEST_LINE]
        grid = choose("overlap", width, height, size, candidates)
        return Cut(
            grid,
            fit(width, height, (grid[0] * size, grid[1] * size)),
            whole="last" if self.options.whole and grid != (1, 1) else "none",
            colour=MEAN_COLOUR,
            resample="bilinear",
            whole_of_canvas=self.options.whole_source == "canvas",
            whole_fitted=fit(width, height, (size, size)),
        )

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        cut = self.cut(width, height, size)
        columns = cut.grid[0]
        spans: list[Text | Places] = []
        for tile in range(cut.parts):
            spans += [by_tile(tile, grid), BREAK if (tile + 1) % columns == 0 else COMMA]
        if cut.whole != "none":
            spans += [by_tile(cut.whole_tile, grid), BREAK]
        return tuple(spans)

    def texts(self) -> tuple[str, ...]:
        return COMMA.text, BREAK.text


def fit(width: int, height: int, room: Grid) -> tuple[int, int]:
    """A picture's size in pixels once it is scaled to fit into `room`."""
    scale = min(room[0] / width, room[1] / height)
    return min(max(1, round(width * scale)), room[0]), min(max(1, round(height * scale)), room[1])
