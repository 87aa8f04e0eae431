"""RoIAlign the slow, plain way: bin by bin, point by point."""

from __future__ import annotations

import math

import numpy as np


def roi_mean(image: np.ndarray, box: list[float], bins: int) -> np.ndarray:
    """RoIAlign bin by bin, point by point, and the mean over bins; the box is in cells of the map."""
    width, height = max(box[2] - box[0], 1.0), max(box[3] - box[1], 1.0)
    across, down = math.ceil(width / bins), math.ceil(height / bins)
    total = np.zeros(len(image))
    for row in range(bins):
        for column in range(bins):
            points = [
                bilinear(
                    image,
                    box[1] + (row + (i + 0.5) / down) * height / bins,
                    box[0] + (column + (j + 0.5) / across) * width / bins,
                )
                for i in range(down)
                for j in range(across)
            ]
            total += np.mean(points, 0)
    return total / bins**2


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """A map (C, H, W) read at one point, as RoIAlign does without alignment."""
    _, high, wide = image.shape
    if y < -1 or y > high or x < -1 or x > wide:
        return np.zeros(len(image))
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), high - 1), min(int(x), wide - 1)
    bottom, right = min(top + 1, high - 1), min(left + 1, wide - 1)
    b, a = (0.0 if top == high - 1 else y - top), (0.0 if left == wide - 1 else x - left)
    corner = image[:, top, left] * (1 - b) * (1 - a) + image[:, top, right] * (1 - b) * a
    return corner + image[:, bottom, left] * b * (1 - a) + image[:, bottom, right] * b * a
