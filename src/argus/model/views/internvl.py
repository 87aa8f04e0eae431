"""InternVL 1.5's dynamic tiles (How Far Are We to GPT-4V?, arXiv 2404.16821).

Of the grids of 1 to 12 tiles the one with the closest aspect ratio is taken, the picture is stretched onto it and read tile by
tile; if there is more than one tile, the whole picture follows as a thumbnail.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.model.views.base import Layout
from argus.model.views.grid import choose, grids
from argus.model.views.tiled import Cut, Tiled, by_tile


class InternVLOptions(Options):
    """How many tiles."""

    min_tiles: int = Field(1, ge=1, le=64, description="fewest tiles")
    max_tiles: int = Field(12, ge=1, le=64, description="most tiles, the thumbnail not counted")
    thumbnail: bool = Field(True, description="show the whole picture behind several tiles")

    @model_validator(mode="after")
    def _ordered(self) -> InternVLOptions:
        if self.min_tiles > self.max_tiles:
            raise ValueError("min_tiles exceeds max_tiles")
        return self


class InternVL(Tiled):
    """Tiles by the closest aspect ratio, thumbnail last."""

    Options = InternVLOptions
    options: InternVLOptions

    def cut(self, width: int, height: int, size: int) -> Cut:
        options = self.options
        grid = choose("closest", width, height, size, grids(options.max_tiles, options.min_tiles))
        whole = "last" if options.thumbnail and grid != (1, 1) else "none"
        return Cut(grid, (grid[0] * size, grid[1] * size), whole=whole)  # type: ignore[arg-type]

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        return tuple(by_tile(tile, grid) for tile in range(self.cut(width, height, size).tiles))
