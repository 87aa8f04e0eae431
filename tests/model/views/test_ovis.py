"""Ovis 1.6's tiles: the published choice of a grid, the order of what is read, and the counts of the release."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from argus.core.registry import build
from argus.model.views.base import BEGIN, BEHIND_WHOLE, COLUMN, END, ROW, places
from argus.model.views.ovis import crops
from tests.model.connectors.composed import composed, picture

SIZE = 384


def slow_grid(width: int, height: int, size: int, most: int, threshold: float) -> tuple[int, int]:
    """Columns and rows as the published rule says, one crop after another."""
    found = []
    for rows in range(1, most + 1):
        for columns in range(1, most + 1):
            if rows * columns > most:
                continue
            kept = Fraction()
            for r in range(rows):
                for c in range(columns):
                    right = width if c == columns - 1 else (c + 1) * (width // columns)
                    bottom = height if r == rows - 1 else (r + 1) * (height // rows)
                    long, short = sorted((right - c * (width // columns), bottom - r * (height // rows)), reverse=True)
                    kept += long * short if long <= size else size * Fraction(short * size, long)
            found.append((kept / (width * height), rows, columns))
    good = [one for one in found if one[0] > threshold]
    if good:
        fewest = min(rows * columns for _, rows, columns in good)
        good = [one for one in good if one[1] * one[2] == fewest]
    best = max(share for share, *_ in good or found)
    _, rows, columns = min((one for one in good or found if one[0] == best), key=lambda one: (one[1] * one[2], one[1]))
    return columns, rows


@settings(max_examples=300, deadline=None)
@given(st.integers(12, 4000), st.integers(12, 4000), st.sampled_from([1, 4, 9, 12]))
def test_the_grid_is_the_published_rules(width: int, height: int, most: int) -> None:
    view = build("view", "ovis", {"max_tiles": most})
    assert view.cut(width, height, SIZE) == slow_grid(width, height, SIZE, most, 0.9)


def test_known_grids() -> None:
    view = build("view", "ovis")
    grids = {(384, 384): (1, 1), (300, 100): (1, 1), (768, 768): (2, 2), (768, 384): (2, 1), (3000, 3000): (3, 3)}
    assert {size: view.cut(*size, SIZE) for size in grids} == grids
    assert build("view", "ovis", {"max_tiles": 1}).cut(3000, 3000, SIZE) == (1, 1)
    assert build("view", "ovis", {"threshold": 0.0}).cut(768, 768, SIZE) == (1, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(12, 3000), st.integers(12, 3000), st.integers(1, 4), st.integers(1, 4))
def test_what_is_read_and_in_which_order(width: int, height: int, rows: int, columns: int) -> None:
    """4 + r c + r (c - 1) + (r - 1) entries of a picture in several crops, 4 of one that is not cut; a tile is one entry."""
    view = build("view", "ovis")
    wide, high = view.cut(width, height, SIZE)
    cells, expected = rows * columns, [BEGIN, "whole", BEHIND_WHOLE]
    if wide * high > 1:
        for r in range(high):
            for c in range(wide):
                expected.append(f"{r} {c}")
                if c < wide - 1:
                    expected.append(COLUMN)
            if r < high - 1:
                expected.append(ROW)
    expected.append(END)
    assert len(expected) == 4 + (wide * high > 1) * (wide * high + high * (wide - 1) + (high - 1))
    slow: list[int] = []
    tile = 0
    for entry in expected:
        if isinstance(entry, int):
            slow.append(entry)
        else:
            slow += range(tile * cells, (tile + 1) * cells)
            tile += 1
    assert places(view.layout(width, height, SIZE, (rows, columns))).tolist() == slow
    assert view.count(width, height, SIZE) == tile


def test_crops_are_whole_pixels_and_the_last_has_the_rest() -> None:
    assert crops(10, 7, (3, 2)) == [(0, 0, 3, 3), (3, 0, 6, 3), (6, 0, 10, 3), (0, 3, 3, 7), (3, 3, 6, 7), (6, 3, 10, 7)]
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 200, 3), dtype=np.uint8))
    view = build("view", "ovis")
    assert view.cut(200, 90, 100) == (2, 1)
    found = view(wide, 100)
    assert (found.pixels[1][5:95] == np.asarray(wide)[:, :100]).all()  # at its own size, in the middle
    assert (found.pixels[2][5:95] == np.asarray(wide)[:, 100:]).all()
    assert (found.pixels[1][:5] == (122, 116, 104)).all()
    assert found.tiles[2].box == (0.5, -5 / 90, 1.0, 95 / 90)
    assert found.tiles[0].box == view.frame(200, 90) == (0.0, -55 / 90, 1.0, 145 / 90)


@pytest.mark.parametrize(("stride", "expected"), [(2, 196), (3, 81)])
def test_counts_of_the_releases(stride: int, expected: int) -> None:
    """27 x 27 patches of SigLIP: 196 tokens a tile in 1.6, 81 in 1.5; ten tiles of 1.6 are 1971 positions."""
    connector = build("connector", "ovis", {"vocabulary": 20, "stride": stride, "framed": False}, vision_width=4, text_width=4)
    grid = connector.tokens((27, 27))
    layout = build("view", "ovis").layout(3000, 3000, SIZE, grid)
    assert len(places(layout)) == 10 * expected + 3 + 3 * 2 + 2
    assert len(places(build("view", "ovis").layout(100, 100, SIZE, grid))) == expected + 3


def test_in_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 2 x 2 patches, indicators that learn, and a batch of one and of several crops that answers as one by one."""
    connector = {"ovis": {"vocabulary": 20, "stride": 2, "framed": False}}
    model, processor = composed(monkeypatch, connector, "ovis")
    texts, pictures = ["<image>\nred?", "<image>\nHow many?"], [picture(0, 64, 60), picture(1, 20, 30)]
    both = processor(pictures, texts, padding=True, return_tensors="pt")
    assert len(both["pixel_values"]) == 5 + 1
    counts = (both["input_ids"] == 3).sum(1).tolist()
    assert counts == [5 * 16 + 3 + 2 + 1, 16 + 3]
    with torch.no_grad():
        logits = model(**both).logits
        for row in range(2):
            one: Any = processor([pictures[row]], [texts[row]], return_tensors="pt")
            torch.testing.assert_close(model(**one).logits[0, -1], logits[row, -1], rtol=1e-3, atol=1e-3)
    model(**both, labels=both["input_ids"]).loss.backward()
    vectors = dict(model.model.image_assembly.named_parameters())
    assert set(vectors) == {"image_begin", "image_behind_whole", "image_column", "image_row", "image_end"}
    assert all(v.grad.abs().sum() > 0 for v in vectors.values())
