import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from argus.core.errors import UnsupportedError
from argus.report.overlay import EDGE, FOUND, VISITED, lit, strip, way


def white(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def test_kept_patches_stay_and_dropped_ones_are_dimmed() -> None:
    # 2 x 3 patches of 4 x 4 pixels; patches 0 and 5 are kept: upper left and lower right.
    pixels = np.asarray(lit(white(12, 8), [0, 5], (2, 3)))
    assert (pixels[:4, :4] == 255).all()
    assert (pixels[4:, 8:] == 255).all()
    # 255 * 0.22 = 56.1 everywhere else
    assert (pixels[:4, 4:] == 56).all()
    assert (pixels[4:, :8] == 56).all()


def test_enlarged_pictures_get_a_line_between_kept_and_dropped() -> None:
    pixels = np.asarray(lit(white(8, 4), [0], (1, 2), scale=2))  # the left half, 8 x 8 pixels, is kept
    assert pixels.shape == (8, 16, 3)
    assert (pixels[:, 7] == EDGE).all()
    assert (pixels[:, :7] == 255).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.data())
def test_each_pixel_follows_the_patch_that_holds_its_centre(
    rows: int, columns: int, height: int, width: int, data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.integers(0, rows * columns - 1)))
    pixels = np.asarray(lit(white(width, height), kept, (rows, columns)))
    for y in range(height):
        for x in range(width):
            patch = int((y + 0.5) * rows / height) * columns + int((x + 0.5) * columns / width)
            assert (pixels[y, x, 0] == 255) == (patch in kept)


def test_a_patch_outside_of_the_grid_is_an_error_that_names_it() -> None:
    with pytest.raises(UnsupportedError, match="patch 4 is outside of a grid of 2 x 2"):
        lit(white(4, 4), [0, 4], (2, 2))


def test_strip_places_pictures_in_rows_with_room_for_captions() -> None:
    pictures = [(f"technique {i}", Image.new("RGB", (100, 100), (i * 40, 0, 0))) for i in range(5)]
    sheet = strip(pictures, columns=2, gap=10)
    assert sheet.width == 2 * 100 + 3 * 10
    # picture 3 stands in row 1, column 1
    row = sheet.height // 3
    assert sheet.getpixel((10 + 110 + 50, row + 20)) == (120, 0, 0)


def test_a_search_is_drawn_as_boxes() -> None:
    """Visits in thin lines, what was found in lines of 3 px, both at twice the size; the last pixel of a box is its own."""
    pixels = np.asarray(way(white(40, 30), [(0, 0, 40, 30), (20, 10, 16, 16)], [(20, 10, 8, 8)], scale=2))
    assert pixels.shape == (60, 80, 3)
    assert (pixels[59] == VISITED).all()
    assert (pixels[51, 40:72] == VISITED).all()
    assert (pixels[20:36, 40:43] == FOUND).all()
    assert (pixels[33:36, 40:56] == FOUND).all()
    assert (pixels[55, 5:70] == 255).all()
