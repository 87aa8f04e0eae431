"""Boxes pooled from maps: equal to reading every point, and the colour of what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from argus.core.registry import build
from argus.model.boxes import in_frame
from argus.model.connectors.box_pool import box_pool
from tests.model.connectors.roi import roi_mean


@pytest.mark.parametrize("bins", [1, 3, 7])
def test_pooling_equals_reading_every_point(bins: int) -> None:
    """Small and large boxes, beyond the border, without extent, and on a map that was enlarged before."""
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.standard_normal((2, 3, 5, 8))).float()
    corners = np.sort(rng.random((2, 6, 2, 2)), axis=2).reshape(2, 6, 4)
    corners[0, 0], corners[0, 1], corners[1, 0] = (0, 0, 0, 0), (0, 0, 1, 1), (-0.3, 0.52, 0.41, 1.3)
    boxes = torch.from_numpy(corners).float()
    for size in (None, (15, 20)):
        large = maps if size is None else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        scale = np.array([large.shape[3], large.shape[2]] * 2)
        expected = [[roi_mean(large[b].numpy(), list(box * scale), bins) for box in corners[b]] for b in range(2)]
        torch.testing.assert_close(
            box_pool(maps, boxes, bins, size).double(), torch.tensor(np.array(expected)), rtol=1e-4, atol=1e-5
        )


def test_boxes_are_pooled_in_single_precision_whatever_the_training_has() -> None:
    maps, boxes = torch.randn(1, 3, 16, 16).bfloat16(), torch.tensor([[(0.1, 0.2, 0.5, 0.6)]])
    expected = box_pool(maps, boxes, 7, (20, 20))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(box_pool(maps, boxes, 7, (20, 20)), expected)
    assert expected.dtype == torch.float32


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
def test_a_drawn_rectangle_is_pooled_from_its_own_cells(mode: str) -> None:
    """Pixels as the map: the mean over the box is the rectangle's colour, whatever became of the picture."""
    drawn = Image.new("RGB", (200, 100), (0, 0, 0))
    ImageDraw.Draw(drawn).rectangle((70, 20, 129, 79), fill=(255, 0, 0))
    view = build("view", "square", {"mode": mode})
    pixels = torch.from_numpy(view(drawn, 64).pixels.copy()).permute(0, 3, 1, 2).float() / 255
    (box,) = in_frame([(0.38, 0.25, 0.62, 0.75)], view.frame(200, 100))  # a little inside
    pooled = box_pool(pixels, torch.tensor([[box]]), 7)[0, 0]
    torch.testing.assert_close(pooled, torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=0.02)
    assert view(drawn, 64).tiles[0].box == view.frame(200, 100)
