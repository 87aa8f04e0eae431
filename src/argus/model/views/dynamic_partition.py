"""InternLM-XComposer2-4KHD's dynamic partition (arXiv 2404.06512), `4khd`.

A picture is scaled to as many tiles along its long side as a budget of `hd_num` tiles holds, padded with white along the
short one, and cut; the whole, padding included, comes first. Both are read row by row with a learned vector behind every row,
and another vector stands between them.

    whole: r rows of c tokens and a newline; divider; h r rows of w c tokens and a newline
    positions = (h w + 1) r c + (h + 1) r + 1          r x c tokens per tile, h x w tiles

With the paper's 12 x 12 tokens per tile and 4 x 4 tiles these are 2509. Budgets are 25 in training, up to 55 for text. The
resize always fills the budget, up or down; `cap_upscale` takes no more tiles along the long side than the picture has pixels
for, as the authors' later model does. Two differences: the whole is made from the picture's bytes with an antialiased filter,
where the published code interpolates normalised numbers without one; and the learned vectors stand behind the connector
instead of in front of it, where they would pass through it as constants (the paper starts them at zero there). The 2 x 2
merge of tokens is a connector's.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from argus.core.registry import Options
from argus.model.views.base import DIVIDER, NEWLINE, Layout, Places
from argus.model.views.grid import partition
from argus.model.views.tiled import Cut, Tiled, by_row, raster

WHITE = (255, 255, 255)


class DynamicPartitionOptions(Options):
    """The budget and what stands between rows."""

    hd_num: int = Field(25, ge=1, le=256, description="most tiles, the whole not counted")
    cap_upscale: bool = Field(False, description="no more tiles along the long side than the picture has pixels for")
    newline: bool = Field(True, description="a learned vector behind every row")
    divider: bool = Field(True, description="a learned vector between the whole and the tiles")
    whole: bool = Field(True, description="show the whole picture in front of the tiles")


class DynamicPartition(Tiled):
    """Whole first, then as many tiles as the budget holds."""

    Options = DynamicPartitionOptions
    options: DynamicPartitionOptions
    reads_rows = True

    def __init__(self, options: DynamicPartitionOptions) -> None:
        super().__init__(options)
        divider = options.divider and options.whole
        self.learned = (*((NEWLINE,) if options.newline else ()), *((DIVIDER,) if divider else ()))

    def cut(self, width: int, height: int, size: int) -> Cut:
        long, short = max(width, height), min(width, height)
        cap = math.ceil(long / size) if self.options.cap_upscale else None
        many = max(partition(width, height, self.options.hd_num, cap))
        side = many * size
        across = max(1, int(side / (long / short)))
        few = -(-across // size)  # what whole pixels fill, which may be one row less than the budget counts
        blank = (few * size - across) // 2
        landscape = width >= height
        return Cut(
            (many, few) if landscape else (few, many),
            (side, across) if landscape else (across, side),
            (0, blank) if landscape else (blank, 0),
            whole="first" if self.options.whole else "none",
            colour=WHITE,
            resample="bilinear",
            whole_of_canvas=True,
        )

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        cut = self.cut(width, height, size)
        spans: list[Places] = []
        if self.options.whole:
            spans.append(by_row(raster(0, (1, 1), grid), self.options.newline))
        if DIVIDER in self.learned:
            spans.append(Places(np.array([DIVIDER])))
        return (*spans, by_row(raster(cut.first_part, cut.grid, grid), self.options.newline))
