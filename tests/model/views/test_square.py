"""Views: what becomes of a picture's corners and sides."""

import numpy as np
import pytest
from PIL import Image

from argus.core.registry import build


@pytest.mark.parametrize(("mode", "corner"), [("pad", (122, 116, 104)), ("crop", (255, 0, 0)), ("stretch", (255, 0, 0))])
def test_a_square_view_of_a_wide_picture(mode: str, corner: tuple[int, int, int]) -> None:
    tiles = build("view", "square", {"mode": mode})(Image.new("RGB", (40, 20), (255, 0, 0)), 16)
    assert tiles.pixels.shape == (1, 16, 16, 3)
    assert tuple(tiles.pixels[0, 0, 0]) == corner
    x1, y1, x2, y2 = tiles.tiles[0].box
    expected = {"pad": (0, -0.5, 1, 1.5), "crop": (0.25, 0, 0.75, 1), "stretch": (0, 0, 1, 1)}[mode]
    assert (x1, y1, x2, y2) == expected


def test_a_picture_of_the_right_size_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    view = build("view", "square")
    assert (view(Image.fromarray(pixels), 16).pixels[0] == pixels).all()
    assert view.count(640, 480, 16) == 1
