"""Views of several tiles: pixels and layouts, beside what transformers does and beside slow references."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

from argus.core.errors import RecipeError
from argus.core.registry import build, components
from argus.model.image_processor import normalise
from argus.model.views.base import DIVIDER, NEWLINE, TASK, Text, places
from argus.model.views.tiled import raster

VIEWS = [row.name for row in components("view")]
SIZES = np.random.default_rng(0).integers(8, 700, (60, 2)).tolist()
GRID = (2, 3)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width + height).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(width: int, height: int) -> Image.Image:
    return noise(-(-width // 8), -(-height // 8)).resize((width, height), Image.Resampling.BILINEAR)


def assert_pixels(ours: torch.Tensor, theirs: torch.Tensor, std: Sequence[float]) -> None:
    """Equal but for a step of 255 or two in few pixels, by which torch's resize differs from Pillow's."""
    steps = (ours - theirs).abs() * 255 * torch.tensor(std)[:, None, None]
    assert steps.max() < 2.1
    assert steps.mean() < 0.15


def texts(view: Any, width: int, height: int, size: int = 32) -> list[str]:
    return [span.text for span in view.layout(width, height, size, GRID) if isinstance(span, Text)]


@pytest.mark.parametrize("name", VIEWS)
def test_what_every_view_promises(name: str) -> None:
    """As many tiles as it counts; every cell at most once, all learned vectors declared, boxes that tile the canvas."""
    view = build("view", name)
    for width, height in SIZES:
        found = view(Image.new("RGB", (width, height)), 16)
        assert found.pixels.shape == (view.count(width, height, 16), 16, 16, 3)
        assert found.pixels.dtype == np.uint8
        assert len(found.tiles) == len(found.pixels)
        sources = places(view.layout(width, height, 16, GRID))
        cells = sources[sources >= 0]
        assert len(np.unique(cells)) == len(cells)
        assert cells.max() < len(found.tiles) * math.prod(GRID)
        tasks = {TASK - n for n in range(sum(task.tokens for task in view.tasks))}
        assert set(sources[sources < 0].tolist()) <= {*view.learned, *tasks}
        parts = [t for t in found.tiles if t.role == "part"]
        if parts:
            assert parts[0].box[:2] == pytest.approx((parts[0].box[0], parts[0].box[1]))
            assert parts[-1].box[2] - parts[0].box[0] >= 1 - 1e-6
            assert parts[-1].box[3] - parts[0].box[1] >= 1 - 1e-6


@pytest.mark.parametrize("name", VIEWS)
def test_a_tile_shows_what_its_box_says(name: str) -> None:
    """A picture whose red is its column and whose green is its row: the middle of a tile tells where it was cut."""
    x, y = np.meshgrid(np.linspace(0, 255, 600), np.linspace(0, 255, 400))
    picture = Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))
    found = build("view", name)(picture, 40)
    for tile, pixels in zip(found.tiles, found.pixels, strict=True):
        centre_x, centre_y = (tile.box[0] + tile.box[2]) / 2, (tile.box[1] + tile.box[3]) / 2
        if 0.02 < centre_x < 0.98 and 0.02 < centre_y < 0.98:
            red, green, _ = pixels[19:21, 19:21].astype(float).mean((0, 1))
            assert (red / 255, green / 255) == pytest.approx((centre_x, centre_y), abs=0.02)


def test_rasters_are_in_true_order() -> None:
    """Cells numbered by where they lie: a canvas of 2 x 3 tiles of 2 x 3 cells, read as one map."""
    found = raster(1, (3, 2), GRID)
    for row in range(4):
        for column in range(9):
            tile = 1 + (row // 2) * 3 + column // 3
            assert found[row, column] == tile * 6 + (row % 2) * 3 + column % 3


@pytest.mark.parametrize("size", [(50, 30), (300, 200), (130, 417), (224, 224), (99, 613)])
def test_internvl_has_the_pixels_of_transformers(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    view = build("view", "internvl")
    theirs = GotOcr2ImageProcessorPil(size={"height": 48, "width": 48}, crop_to_patches=True, max_patches=12)
    expected = theirs(picture, return_tensors="pt")["pixel_values"]
    ours = normalise(view(picture, 48).pixels, theirs.image_mean, theirs.image_std)
    assert_pixels(ours, expected, theirs.image_std)


@pytest.mark.parametrize("size", [(50, 30), (300, 200), (130, 417), (224, 224), (99, 613)])
def test_anyres_has_the_pixels_of_transformers(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    points = [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]
    theirs = LlavaNextImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, image_grid_pinpoints=points
    )
    expected = theirs(picture, return_tensors="pt")["pixel_values"][0]
    ours = normalise(build("view", "anyres")(picture, 48).pixels, theirs.image_mean, theirs.image_std)
    assert_pixels(ours, expected, theirs.image_std)


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 2000), st.integers(10, 2000))
def test_anyres_packs_and_unpads_as_transformers_does(width: int, height: int) -> None:
    view = build("view", "anyres")
    side, patches = 48, 6

    class Model:
        config = LlavaNextConfig(image_grid_pinpoints=[[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]])
        config.vision_config.image_size, config.vision_config.patch_size = side, side // patches

    count = view.count(width, height, side)
    numbers = torch.arange(count * patches**2, dtype=torch.float64).view(count, -1, 1)
    packed, _ = LlavaNextModel.pack_image_features(
        Model(),  # type: ignore[arg-type]
        [numbers],
        torch.tensor([[height, width]]),
        vision_feature_select_strategy="default",
        image_newline=torch.full((1,), float(NEWLINE), dtype=torch.float64),
    )
    assert places(view.layout(width, height, side, (patches, patches))).tolist() == packed[0][:, 0].long().tolist()


def test_4khd_length_and_order() -> None:
    """(h w + 1) r c + (h + 1) r + 1; published: 313, 2509, 3817, 8137 positions at 12 x 12 tokens per tile."""
    for tiles, size, expected in [(1, (336, 336), 313), (16, (336, 336), 2509), (25, (900, 900), 3817), (55, (3696, 1680), 8137)]:
        layout = build("view", "4khd", {"hd_num": tiles}).layout(*size, 336, (12, 12))
        assert len(places(layout)) == expected
    whole, divider, parts = build("view", "4khd", {"hd_num": 4}).layout(100, 100, 32, (2, 2))
    assert whole.source.tolist() == [0, 1, NEWLINE, 2, 3, NEWLINE]
    assert divider.source.tolist() == [DIVIDER]
    assert parts.source.tolist()[:10] == [4, 5, 8, 9, NEWLINE, 6, 7, 10, 11, NEWLINE]


def test_4khd_portrait_is_landscape_transposed() -> None:
    view = build("view", "4khd", {"hd_num": 9})
    for width, height in [(301, 97), (640, 480), (1000, 30)]:
        picture = noise(width, height)
        turned = picture.transpose(Image.Transpose.TRANSPOSE)
        a, b = view.cut(width, height, 32), view.cut(height, width, 32)
        assert (a.grid, a.fitted, a.offset) == (b.grid[::-1], b.fitted[::-1], b.offset[::-1])
        wide, tall = view(picture, 32), view(turned, 32)
        order = np.arange(a.parts).reshape(a.grid[1], a.grid[0]).T.ravel()  # tall's tiles, row by row, in wide's numbers
        difference = tall.pixels[1:].astype(int) - wide.pixels[1:][order].swapaxes(1, 2)
        assert abs(difference).max() <= 1  # the two passes of a resize run in the other order


def test_4khd_is_cut_as_published() -> None:
    """The published steps written out: scale the width, pad the height to whole tiles, transpose what is upright. 672 rows of
    pixels are two tiles high, although 4 / 1.999 is a little more than two."""
    assert build("view", "4khd", {"hd_num": 12}).cut(1999, 1000, 336).grid == (4, 2)
    rng = np.random.default_rng(0)
    near = [(int(n * h / 2 + d), int(h)) for h in (500, 1000) for n in (3, 4, 5, 6) for d in (-1, 1)]
    for width, height in [*near, *rng.integers(20, 4000, (1000, 2)).tolist()]:
        budget = int(rng.integers(1, 66))
        cut = build("view", "4khd", {"hd_num": budget}).cut(width, height, 336)
        ratio, many = max(width, height) / min(width, height), 1
        while many * math.ceil(many / ratio) <= budget:
            many += 1
        many = max(many - 1, 1)
        fitted = (336 * many, max(1, int(336 * many / ratio)))
        padded = 336 * math.ceil(fitted[1] / 336)
        expected = ((many, padded // 336), fitted, (0, (padded - fitted[1]) // 2))
        turned = expected if width >= height else tuple(pair[::-1] for pair in expected)
        assert (cut.grid, cut.fitted, cut.offset) == turned
        assert cut.parts <= budget


@pytest.mark.parametrize("side", [448, 490, 560])
def test_4khd_with_tiles_of_other_encoders(side: int) -> None:
    """The budget counts tiles: the grid is that of 336 px, scaled to whole tiles of the encoder's side."""
    view = build("view", "4khd", {"hd_num": 25})
    for width, height in np.random.default_rng(1).integers(50, 4000, (100, 2)).tolist():
        cut = view.cut(width, height, side)
        assert cut.parts <= 25
        assert max(cut.grid) == max(view.cut(width, height, 336).grid)
        assert max(cut.fitted) == max(cut.grid) * side
        assert 0 <= min(cut.grid) * side - min(cut.fitted) < side
    assert view(Image.new("RGB", (300, 200)), side).pixels.shape == (6 * 4 + 1, side, side, 3)


def test_4khd_options() -> None:
    small = build("view", "4khd", {"hd_num": 16, "cap_upscale": True})
    assert small.cut(40, 40, 32).grid == (2, 2)
    bare = build("view", "4khd", {"hd_num": 4, "newline": False, "divider": False})
    assert len(places(bare.layout(64, 64, 32, (2, 2)))) == 5 * 4
    assert bare.learned == ()
    alone = build("view", "4khd", {"hd_num": 4, "whole": False})
    assert (alone.learned, alone.count(64, 64, 32)) == ((NEWLINE,), 4)
    corner = build("view", "4khd")(Image.new("RGB", (100, 60)), 32).pixels[1, 0, 0]
    assert corner.tolist() == [255, 255, 255]


def test_ferret_ui_grids() -> None:
    """Published: 1728 tokens; the released code's 336 x 1008 for an iPhone and 672 x 672 for common Android screens."""
    view = build("view", "ferret_ui")
    assert view.cut(1170, 2532, 336).grid == (1, 2)
    assert view.cut(2532, 1170, 336).grid == (2, 1)
    assert view.cut(1000, 1000, 336).grid == (1, 2)
    assert len(places(view.layout(1170, 2532, 336, (24, 24)))) == 1728
    # Halves side by side are read row by row of the screen: 4 5 | 8 9 stand beside each other.
    assert places(view.layout(100, 50, 32, (2, 2))).tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]
    assert places(view.layout(50, 100, 32, (2, 2))).tolist() == list(range(12))
    release = build("view", "ferret_ui", {"grids": "release"})
    assert release.cut(1170, 2532, 336).grid == (1, 3)
    for size in [(1440, 2560), (1080, 1920), (750, 1334), (1000, 1000)]:
        assert release.cut(*size, 336).grid == (2, 2)
    assert len(places(release.layout(1170, 2532, 336, (24, 24)))) == 2304
    assert len(places(release.layout(1000, 1000, 336, (24, 24)))) == 2880
    base = build("view", "ferret_ui", {"grids": "base"})
    assert (base.count(300, 900, 336), len(places(base.layout(300, 900, 336, (24, 24))))) == (1, 576)


def test_nvlm_tags() -> None:
    """A picture of 3 x 2 tiles has six tags and the thumbnail's; one tile is its own thumbnail."""
    wide = (600, 400)
    assert build("view", "nvlm").cut(*wide, 32).grid == (3, 2)
    expected = [*(f"<tile_{k}>" for k in range(1, 7)), "<tile_global_thumbnail>"]
    assert texts(build("view", "nvlm"), *wide) == ["<Image>", *expected, "</Image>"]
    assert texts(build("view", "nvlm", {"wrap": False}), 20, 20) == ["<tile_global_thumbnail>"]
    assert texts(build("view", "nvlm", {"tags": "none", "wrap": False}), *wide) == []
    grid = texts(build("view", "nvlm", {"tags": "2d_grid", "wrap": False}), *wide)
    assert grid[:4] == ["<tile_x0_y0>", "<tile_x1_y0>", "<tile_x2_y0>", "<tile_x0_y1>"]
    box = texts(build("view", "nvlm", {"tags": "2d_box", "wrap": False}), *wide)
    assert box[1] == "<box> (333, 000), (666, 499) </box>"
    twelve = build("view", "nvlm", {"max_tiles": 12, "wrap": False})
    assert texts(twelve, 400, 300)[0] == "<tile_01>"
    assert texts(twelve, 400, 300)[-1] == "<tile_global_thumbnail0>"
    for kind in ("1d", "2d_grid", "2d_box"):
        view = build("view", "nvlm", {"tags": kind, "wrap": False})
        assert set().union(*(texts(view, *size) for size in SIZES)) <= set(view.tags())


def test_whole_tiles_of_each_view() -> None:
    for name, place in [("internvl", -1), ("nvlm", -1), ("anyres", 0), ("4khd", 0), ("ferret_ui", 0)]:
        found = build("view", name)(Image.new("RGB", (300, 500)), 32).tiles
        assert [t.role for t in found].count("whole") == 1
        assert found[place].role == "whole"
    assert [t.role for t in build("view", "internvl")(Image.new("RGB", (20, 20)), 32).tiles] == ["part"]
    wide = places(build("view", "internvl").layout(64, 32, 32, (2, 2)))  # two tiles, one behind the other, and the whole
    assert wide.tolist() == list(range(12))


def test_blue_lm_is_a_setting_of_anyres() -> None:
    view = build("view", "anyres", {"rule": "relaxed", "max_tiles": 9, "newline": False, "unpad": False})
    assert view.cut(394, 390, 384).grid == (1, 1)
    assert len(places(view.layout(800, 600, 384, (14, 14)))) == (4 + 1) * 196
    assert build("view", "anyres", {"max_tiles": 9, "rule": "relaxed", "whole_of_one": False}).count(380, 76, 384) == 1


def test_grids_of_no_tiles_are_refused() -> None:
    for grids in ([[0, 1]], [[2, -1]], []):
        with pytest.raises(RecipeError, match="grids"):
            build("view", "anyres", {"grids": grids})
