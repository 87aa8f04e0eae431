"""Resizing bytes: Pillow's filters, pixels untouched where nothing is to be done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from argus.model.views.resize import Filter, as_bytes, placed, resized

PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SIDES = st.integers(1, 90)


@pytest.mark.parametrize("how", ["bicubic", "bilinear"])
@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 99))
def test_it_is_pillow_s_columns_and_then_rows(how: Filter, w: int, h: int, wide: int, high: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    across = Image.fromarray(pixels).resize((wide, h), PILLOW[how])
    expected = np.asarray(across.resize((wide, high), PILLOW[how]))
    found = resized(pixels, (wide, high), how)
    assert found.shape == (high, wide, 3)
    assert np.abs(found.astype(int) - expected).max() <= 2  # one step for each pass


def test_a_photograph_is_nearly_pillow_s_to_the_byte() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC)
    off = np.abs(resized(as_bytes(picture), (336, 252)).astype(int) - np.asarray(picture.resize((336, 252), PILLOW["bicubic"])))
    assert off.max() <= 1
    assert (off > 0).mean() < 0.02


def test_crops_and_pixels_that_have_the_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert resized(pixels, (30, 20)) is pixels
    part = pixels[3:17, 5:25]  # not contiguous
    assert (resized(part, (7, 9)) == resized(part.copy(), (7, 9))).all()


def test_placed_fills_the_rest_with_the_colour() -> None:
    pixels = np.full((2, 3, 3), 9, dtype=np.uint8)
    canvas = placed(pixels, (5, 4), (1, 2), (1, 2, 3))
    expected = np.tile(np.array([1, 2, 3], dtype=np.uint8), (4, 5, 1))
    expected[2:, 1:4] = 9
    assert (canvas == expected).all()
    assert placed(pixels, (3, 2), (0, 0), (0, 0, 0)) is pixels
