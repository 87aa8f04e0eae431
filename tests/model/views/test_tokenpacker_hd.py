"""TokenPacker-HD: the grid, the canvas, the whole behind the tiles, and separators in text."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from argus.core.registry import build
from argus.model.views.base import Text, places
from argus.model.views.grid import grids
from argus.model.views.square import MEAN_COLOUR
from tests.model.tiny import tokenizer


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(336, 336, 1, 1), (480, 640, 2, 3), (1080, 1920, 2, 4), (1000, 300, 3, 1), (2000, 2000, 3, 3)],
)
def test_grids_of_the_published_code(height: int, width: int, rows: int, columns: int) -> None:
    assert build("view", "tokenpacker_hd").cut(width, height, 336).grid == (columns, rows)


@pytest.mark.parametrize(("most", "count"), [(9, 23), (16, 36), (25, 55)])
@settings(max_examples=400, deadline=None)
@given(width=st.integers(20, 4000), height=st.integers(20, 4000))
def test_the_grid_is_the_best_of_all_scores(most: int, count: int, width: int, height: int) -> None:
    """The published lists: all products, without single lines of more than nine tiles."""
    listed = [g for g in grids(most) if 1 not in g or max(g) <= 9]
    assert len(listed) == count
    wide, high = 336.0 * np.array(listed).T
    scale = np.minimum(high / height, wide / width)
    shared = np.minimum(wide, 1.4 * width) * np.minimum(high, 1.4 * height)
    union = wide * high + 1.4 * height * 1.4 * width - shared
    scores = np.round(height * scale) * np.round(width * scale) / (wide * high) + 0.1 * shared / (union + 1e-5)
    chosen = build("view", "tokenpacker_hd", {"max_tiles": most}).cut(width, height, 336).grid
    assert scores[listed.index(chosen)] == pytest.approx(scores.max(), abs=1e-9)


def test_positions_and_separators_of_every_grid() -> None:
    """(h w + 1) M + h (w - 1) + h + 1 tokens, or M + 1 of a single tile; commas inside rows, a line break behind each."""
    view, words = build("view", "tokenpacker_hd"), tokenizer()
    seen = set()
    for width, height in itertools.product(range(40, 1000, 24), repeat=2):
        columns, rows = view.cut(width, height, 96).grid
        if (columns, rows) in seen:
            continue
        seen.add((columns, rows))
        layout = view.layout(width, height, 96, (2, 3))
        between = [span.text for span in layout if isinstance(span, Text)]
        line = [","] * (columns - 1) + ["\n"]
        assert between == (line * rows + ["\n"] if columns * rows > 1 else ["\n"])
        written = sum(len(words(text, add_special_tokens=False).input_ids) for text in between)
        total = (rows * columns + 1) * 6 + rows * (columns - 1) + rows + 1 if rows * columns > 1 else 6 + 1
        assert len(places(layout)) + written == total
        assert places(layout).tolist() == list(range(len(places(layout))))
    assert len(seen) == 23


def test_the_canvas_is_filled_up_with_the_mean_colour() -> None:
    """100 x 60 pixels in 3 x 2 tiles of 32: scaled to 96 x 58; the whole is 32 x 19, in the corner of its tile."""
    white = Image.new("RGB", (100, 60), (255, 255, 255))
    view = build("view", "tokenpacker_hd")
    cut = view.cut(100, 60, 32)
    assert (cut.grid, cut.fitted, cut.whole_fitted) == ((3, 2), (96, 58), (32, 19))
    pixels = view(white, 32).pixels
    assert (pixels[:3] == 255).all()
    assert (pixels[3:6, :26] == 255).all()
    assert (pixels[3:6, 26:] == MEAN_COLOUR).all()
    assert (pixels[6, :19] == 255).all()
    assert (pixels[6, 19:] == MEAN_COLOUR).all()


def test_the_whole_of_the_released_weights_has_the_padding_squeezed_in() -> None:
    white = Image.new("RGB", (100, 60), (255, 255, 255))
    found = build("view", "tokenpacker_hd", {"whole_source": "canvas"})(white, 32)
    assert (found.pixels[6, :16] == 255).all()
    assert (found.pixels[6, 18] < 200).all()  # 58 of the canvas's 64 rows are picture, of the whole's 19 rows 17
    assert found.tiles[6].box == pytest.approx((0, 0, 1, 64 / 58 * 32 / 19))


def test_one_tile_has_no_whole() -> None:
    view = build("view", "tokenpacker_hd")
    assert [tile.role for tile in view(Image.new("RGB", (30, 30)), 32).tiles] == ["part"]
    assert view.count(100, 60, 32) == 7
    assert build("view", "tokenpacker_hd", {"whole": False}).count(100, 60, 32) == 6
