"""Pictures at another size, with the antialiased filters of Pillow and of transformers' processors.

torch resizes bytes with vector instructions where they lie, several times as fast as Pillow. Columns come first, then
rows, as in Pillow before version 13, which takes the cheaper order. A bicubic filter clips between the two what overshoots, so
hard edges may differ where the order does; else a pixel differs by one step of 255 at most for each pass, because weights are
rounded to 16 bits.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

Filter = Literal["bicubic", "bilinear"]


def as_bytes(picture: Image.Image) -> np.ndarray:
    """The pixels of an RGB picture: (H, W, 3) uint8."""
    return np.array(picture)


def resized(pixels: np.ndarray, size: tuple[int, int], how: Filter = "bicubic") -> np.ndarray:
    """Pixels (H, W, 3) at another width and height; untouched where they have it."""
    if pixels.shape[1::-1] == size:
        return pixels
    planes = torch.from_numpy(np.ascontiguousarray(pixels))[None].permute(0, 3, 1, 2)  # (1, 3, H, W), channels last
    found = F.interpolate(planes, size=size[::-1], mode=how, antialias=True)
    return found[0].permute(1, 2, 0).numpy()  # (h, w, 3)


def placed(pixels: np.ndarray, size: tuple[int, int], at: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    """Pixels (H, W, 3) on a canvas of a width, height and colour, their left upper corner at x, y."""
    if pixels.shape[1::-1] == size:
        return pixels
    canvas = np.empty((size[1], size[0], 3), dtype=np.uint8)
    canvas[:] = np.array(colour, dtype=np.uint8)
    (x, y), (high, wide) = at, pixels.shape[:2]
    canvas[y : y + high, x : x + wide] = pixels
    return canvas
