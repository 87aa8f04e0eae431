"""NVLM's tagged tiles (NVLM: Open Frontier-Class Multimodal LLMs, arXiv 2409.11402).

1 to 6 tiles by InternVL's rule and a thumbnail behind them; in front of each tile a text tag says which it is, so that the
language model knows how the flat sequence was cut.

    <Image> <tile_1> v...v <tile_2> v...v <tile_global_thumbnail> v...v </Image>

Tags are ordinary text in the language model's own tokens. Kinds: `1d` <tile_k>; `2d_grid` <tile_x0_y0> with column and row;
`2d_box` <box> (x0, y0), (x1, y1) </box> with the tile's corners in thousandths, three digits each. A picture of one tile is
its own thumbnail and has that tag alone. Above 9 tiles the published code writes two digits and <tile_global_thumbnail0>;
more than 12 it does not know. It needs tags of equal length, as counted by the tokenizer; so do we, for the token map, and
other lengths are refused (`thumbnail_tag` lets the thumbnail's name be fitted; for Yi the authors write <tile_global>). Ties
of the rule: see `grid`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import Layout, Places, Text
from argus.model.views.grid import Rule, choose, grids
from argus.model.views.tiled import Cut, Tiled, by_tile

THOUSAND = 999  # boxes run from 000 to 999


class NVLMOptions(Options):
    """How many tiles, and how they are announced."""

    max_tiles: int = Field(6, ge=1, le=12, description="most tiles, the thumbnail not counted")
    thumbnail: bool = Field(True, description="show the whole picture behind several tiles")
    tags: Literal["none", "1d", "2d_grid", "2d_box"] = Field("1d", description="what stands in front of a tile")
    thumbnail_tag: str | None = Field(None, description="tag of the thumbnail; the paper's when not given")
    wrap: bool = Field(True, description="write <Image> and </Image> around a picture")
    rule: Literal["closest", "area_weighted"] = Field("closest", description="how the grid is chosen")


class NVLM(Tiled):
    """Tiles with tags, thumbnail last."""

    Options = NVLMOptions
    options: NVLMOptions

    def cut(self, width: int, height: int, size: int) -> Cut:
        rule: Rule = self.options.rule
        grid = choose(rule, width, height, size, grids(self.options.max_tiles))
        whole = "last" if self.options.thumbnail and grid != (1, 1) else "none"
        return Cut(grid, (grid[0] * size, grid[1] * size), whole=whole)  # type: ignore[arg-type]

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        cut = self.cut(width, height, size)
        spans: list[Text | Places] = []
        for tile in range(cut.tiles):
            if self.options.tags != "none":
                alone = cut.parts == 1 or tile == cut.whole_tile
                spans.append(Text(self._whole() if alone else self._tag(tile, *cut.grid), tile))
            spans.append(by_tile(tile, grid))
        return (Text("<Image>"), *spans, Text("</Image>")) if self.options.wrap else tuple(spans)

    def tags(self) -> tuple[str, ...]:
        if self.options.tags == "none":
            return ()
        every = [self._tag(t, *grid) for grid in grids(self.options.max_tiles, 2) for t in range(grid[0] * grid[1])]
        return tuple(dict.fromkeys([*every, self._whole()]))

    def texts(self) -> tuple[str, ...]:
        return (*self.tags(), *(("<Image>", "</Image>") if self.options.wrap else ()))

    def _tag(self, tile: int, columns: int, rows: int) -> str:
        row, column = divmod(tile, columns)
        if self.options.tags == "1d":
            return f"<tile_{tile + 1:0{self._digits()}d}>"
        if self.options.tags == "2d_grid":
            return f"<tile_x{column:0{self._digits()}d}_y{row:0{self._digits()}d}>"
        x0, x1 = (THOUSAND * x // columns for x in (column, column + 1))
        y0, y1 = (THOUSAND * y // rows for y in (row, row + 1))
        return f"<box> ({x0:03d}, {y0:03d}), ({x1:03d}, {y1:03d}) </box>"

    def _whole(self) -> str:
        if self.options.thumbnail_tag is not None:
            return self.options.thumbnail_tag
        if self.options.tags == "2d_box":
            return f"<box> (000, 000), ({THOUSAND}, {THOUSAND}) </box>"
        return "<tile_global_thumbnail>" if self._digits() == 1 else "<tile_global_thumbnail0>"

    def _digits(self) -> int:
        return 1 if self.options.max_tiles <= 9 else 2
