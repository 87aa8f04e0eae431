"""Rules that choose a grid, each beside a brute-force reading of its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.image_processing_utils import select_best_resolution
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from argus.model.views.grid import choose, effective, grids, partition

SIDES = st.integers(1, 4000)
NINE = grids(9)


def test_grids_are_all_products_within_the_budget() -> None:
    assert grids(4) == ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (2, 2), (4, 1))
    assert len(NINE) == sum(9 // c for c in range(1, 10))
    assert min(c * r for c, r in grids(6, 2)) == 2


@given(SIDES, SIDES, st.sampled_from([6, 12]))
def test_the_closest_ratio_is_that_of_transformers(width: int, height: int, most: int) -> None:
    """Its order of grids of one area is ours."""
    assert choose("closest", width, height, 448, grids(most)) == get_optimal_tiled_canvas((height, width), (448, 448), 1, most)


@given(SIDES, SIDES)
def test_the_best_fit_is_that_of_transformers(width: int, height: int) -> None:
    found = select_best_resolution((height, width), [(384 * r, 384 * c) for c, r in NINE])
    assert choose("best_fit", width, height, 384, NINE) == (found[1] // 384, found[0] // 384)


@given(SIDES, SIDES)
def test_the_area_weighted_rule(width: int, height: int) -> None:
    """All scores written out."""
    scores = []
    for columns, rows in grids(6):
        area = min(columns * rows * 448**2 / (width * height), 0.6)
        ratio = (columns / rows) / (width / height)
        scores.append(area * min(ratio, 1 / ratio))
    assert choose("area_weighted", width, height, 448, grids(6)) == grids(6)[int(np.argmax(scores))]


@pytest.mark.parametrize(
    ("size", "expected"),  # relaxed, best fit, closest
    [
        ((394, 390), ((1, 1), (2, 2), None)),
        ((380, 76), ((1, 1), None, (5, 1))),
        ((800, 600), ((2, 2), (3, 2), (3, 2))),
        ((1920, 1080), ((4, 2), (4, 2), (4, 2))),
    ],
)
def test_published_examples(size: tuple[int, int], expected: tuple[tuple[int, int] | None, ...]) -> None:
    """Small pictures are not blown up: a relaxed match keeps 394 x 390 in one tile of 384."""
    for rule, grid in zip(("relaxed", "best_fit", "closest"), expected, strict=True):
        if grid is not None:
            assert choose(rule, *size, 384, NINE) == grid  # type: ignore[arg-type]


def test_relaxing_by_nothing_is_the_best_fit_and_by_a_tenth_loses_a_tenth_at_most() -> None:
    sizes = np.random.default_rng(0).integers(50, 3000, (10_000, 2)).tolist()
    tiles = {0.0: 0, 0.1: 0, 0.3: 0}
    for width, height in sizes:
        best = choose("best_fit", width, height, 384, NINE)
        assert choose("relaxed", width, height, 384, NINE, 0.0) == best
        kept = choose("relaxed", width, height, 384, NINE, 0.1)
        assert effective(width, height, 384, kept)[0] >= 0.9 * effective(width, height, 384, best)[0]
        for alpha in tiles:
            columns, rows = choose("relaxed", width, height, 384, NINE, alpha)
            tiles[alpha] += columns * rows
    assert tiles[0.0] > tiles[0.1] > tiles[0.3]


def test_relaxed_matching_saves_tiles_on_small_pictures() -> None:
    """Sides of 50 to 800 px: 2.3 tiles where the closest ratio takes 4.1."""
    sizes = np.random.default_rng(0).integers(50, 801, (4000, 2)).tolist()
    mean = {
        rule: np.mean([math.prod(choose(rule, w, h, 384, NINE)) for w, h in sizes])  # type: ignore[arg-type]
        for rule in ("relaxed", "best_fit", "closest")
    }
    assert mean["relaxed"] < mean["best_fit"] < mean["closest"]
    assert mean["relaxed"] <= 0.65 * mean["closest"]


@given(SIDES, SIDES, st.integers(1, 65))
def test_a_partition_fills_the_budget(width: int, height: int, budget: int) -> None:
    """One more tile along the long side would exceed it; portrait is the transpose of landscape."""
    columns, rows = partition(width, height, budget)
    assert partition(height, width, budget) == (rows, columns)
    long, short = max(columns, rows), min(columns, rows)
    ratio = max(width, height) / min(width, height)
    assert long * short <= budget or long == 1
    assert short == math.ceil(long / ratio)
    assert (long + 1) * math.ceil((long + 1) / ratio) > budget
    assert max(partition(width, height, budget, cap=2)) <= 2
