"""How many tiles a picture becomes: rules that choose a grid of columns and rows.

All rules look at a picture of (width, height) pixels and tiles of side `size`. Most choose among candidates:

    closest        InternVL 1.5 (arXiv 2404.16821), NVLM (arXiv 2409.11402): the aspect ratio alone decides,
                       argmin |W / H - c / r|; of equally close grids a later one wins where W H > 0.5 size^2 c r.
    area_weighted  NVLM's published alternative: argmax min(c r size^2 / (W H), 0.6) * min(q, 1 / q), q = (c / r) / (W / H).
    best_fit       LLaVA-NeXT: the picture is scaled to fit; argmax of the effective resolution
                       Re = min(fitted area, W H), then argmin of the waste Rw = c r size^2 - Re.
    overlap        TokenPacker-HD (arXiv 2407.02392): argmax of the share of the canvas that the picture covers once it is scaled
                       to fit, plus a tenth of the IoU of the canvas with the picture at 1.4 times its size, corners together.
    relaxed        BlueLM-V-3B (arXiv 2411.10640): from the largest grid down, a grid is taken that has Re more than a share
                       alpha better than the best so far, or within alpha of it with less waste. alpha 0 is best_fit.

`partition` is the rule of InternLM-XComposer2-4KHD (arXiv 2404.06512): as many tiles along the long side as the budget holds.

Candidates are visited in order of area, then of columns (NVLM's code orders grids of one area by the hash of a set; here the
order is fixed). BlueLM-V has no published code: its comparison is read with "at most alpha", since with "less than alpha" an
alpha of 0 would break no tie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

Grid = tuple[int, int]  # columns, rows
Rule = Literal["closest", "area_weighted", "best_fit", "overlap", "relaxed"]
AREA_CAP = 0.6  # of the area-weighted rule
OVERLAP_ENLARGED, OVERLAP_WEIGHT = 1.4, 0.1  # of the overlap rule


@cache
def grids(most: int, fewest: int = 1) -> tuple[Grid, ...]:
    """All grids of `fewest` to `most` tiles, by area, then by columns."""
    found = [(c, r) for c in range(1, most + 1) for r in range(1, most // c + 1) if c * r >= fewest]
    return tuple(sorted(found, key=lambda g: (g[0] * g[1], g[0])))


def choose(rule: Rule, width: int, height: int, size: int, candidates: Sequence[Grid], alpha: float = 0.1) -> Grid:
    """The grid that a rule chooses among candidates.

    Args:
        width, height: of the picture, in pixels.
        size: side of a tile in pixels.
        candidates: (columns, rows), in the order in which ties are broken.
        alpha: tolerance of the relaxed rule.
    """
    if rule == "relaxed":
        return relaxed(width, height, size, candidates, alpha)
    return RULES[rule](width, height, size, candidates)


def closest(width: int, height: int, size: int, candidates: Sequence[Grid]) -> Grid:
    """The closest aspect ratio; of equals the largest that the picture half fills."""
    best, best_difference = (1, 1), math.inf
    for columns, rows in candidates:
        difference = abs(width / height - columns / rows)
        half_full = width * height > 0.5 * size * size * columns * rows
        if difference < best_difference or (difference == best_difference and half_full):
            best, best_difference = (columns, rows), difference
    return best


def area_weighted(width: int, height: int, size: int, candidates: Sequence[Grid]) -> Grid:
    """Aspect ratio times the area that the tiles offer; the first of equals."""

    def score(grid: Grid) -> float:
        quotient = grid[0] / grid[1] / (width / height)
        return min(grid[0] * grid[1] * size * size / (width * height), AREA_CAP) * min(quotient, 1 / quotient)

    return max(candidates, key=score)


def effective(width: int, height: int, size: int, grid: Grid) -> tuple[int, int]:
    """Effective and wasted resolution of a grid, in pixels."""
    wide, high = grid[0] * size, grid[1] * size
    scale = min(wide / width, high / height)
    used = min(int(width * scale) * int(height * scale), width * height)
    return used, wide * high - used


def best_fit(width: int, height: int, size: int, candidates: Sequence[Grid]) -> Grid:
    """The greatest effective resolution, then the least waste; the first of equals."""

    def score(grid: Grid) -> tuple[int, int]:
        used, wasted = effective(width, height, size, grid)
        return used, -wasted

    return max(candidates, key=score)


def overlap(width: int, height: int, size: int, candidates: Sequence[Grid]) -> Grid:
    """The fullest canvas, of a size near the picture's; the first of equals."""

    def score(grid: Grid) -> float:
        wide, high = grid[0] * size, grid[1] * size
        scale = min(wide / width, high / height)
        fill = round(height * scale) * round(width * scale) / (wide * high)
        larger_width, larger_height = OVERLAP_ENLARGED * width, OVERLAP_ENLARGED * height
        shared = min(wide, larger_width) * min(high, larger_height)
        return fill + OVERLAP_WEIGHT * shared / (wide * high + larger_width * larger_height - shared + 1e-5)

    return max(candidates, key=score)


def relaxed(width: int, height: int, size: int, candidates: Sequence[Grid], alpha: float) -> Grid:
    """The least waste among grids whose effective resolution is at most a share `alpha` below the best."""
    best, most, least = candidates[0], 0, math.inf
    for grid in sorted(candidates, key=lambda g: -g[0] * g[1]):
        used, wasted = effective(width, height, size, grid)
        better = used - most > alpha * most
        as_good = abs(most - used) <= alpha * most and wasted < least
        if better or as_good:
            best, most, least = grid, max(most, used), wasted
    return best


def partition(width: int, height: int, budget: int, cap: int | None = None) -> Grid:
    """As many tiles along the long side as make no more than `budget` in all.

    Args:
        cap: most tiles along the long side.
    """
    if width < height:
        rows, columns = partition(height, width, budget, cap)
        return columns, rows
    ratio = width / height
    side = 1
    while (side + 1) * math.ceil((side + 1) / ratio) <= budget:
        side += 1
    side = min(side, cap or side)
    return side, math.ceil(side / ratio)


RULES: dict[str, Callable[[int, int, int, Sequence[Grid]], Grid]] = {
    "closest": closest,
    "area_weighted": area_weighted,
    "best_fit": best_fit,
    "overlap": overlap,
}
