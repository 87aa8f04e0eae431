"""Shapes, textures and grounds as cached pixels, and the exact cover of a grid by shapes.

Shapes are drawn by Pillow at four times the size and averaged down, so edges are smooth and the bytes are the same on every
machine. At 96 px a scene needs only masks that were drawn before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

OVER = 4  # supersampling per axis
CACHED = 64  # masks up to this many pixels across are kept
FINE = 8  # subdivisions of a grid cell in `coverage`

Point = tuple[float, float]


def _star() -> list[Point]:
    radii = (1.0, 0.42)
    return [(radii[k % 2] * math.sin(k * math.pi / 5), -radii[k % 2] * math.cos(k * math.pi / 5)) for k in range(10)]


def _heart() -> list[Point]:
    ts = [2 * math.pi * k / 40 for k in range(40)]
    return [
        (math.sin(t) ** 3, 0.05 - (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
        for t in ts
    ]


# Corner points in [-1, 1], y down. Circle and ring are ellipses.
POLYGONS: dict[str, list[Point]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0, -1), (1, 0.8), (-1, 0.8)],
    "star": _star(),
    "cross": [
        (-0.32, -1), (0.32, -1), (0.32, -0.32), (1, -0.32), (1, 0.32), (0.32, 0.32),
        (0.32, 1), (-0.32, 1), (-0.32, 0.32), (-1, 0.32), (-1, -0.32), (-0.32, -0.32),
    ],
    "diamond": [(0, -1), (0.72, 0), (0, 1), (-0.72, 0)],
    "heart": _heart(),
}  # fmt: skip


def _draw_shape(shape: str, d: int, rotation: int) -> Image.Image:
    n = OVER * d
    mask = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(mask)
    margin = OVER // 2
    if shape in ("circle", "ring"):
        draw.ellipse((margin, margin, n - 1 - margin, n - 1 - margin), fill=255)
        if shape == "ring":
            hole = round(0.26 * n)
            draw.ellipse((hole, hole, n - 1 - hole, n - 1 - hole), fill=0)
    else:
        r = n / 2 - margin
        draw.polygon([(round(n / 2 + r * x), round(n / 2 + r * y)) for x, y in POLYGONS[shape]], fill=255)
    if rotation:
        mask = mask.rotate(rotation, Image.Resampling.NEAREST)
    return mask.reduce(OVER)


def _draw_texture(texture: str, d: int) -> Image.Image:
    n = OVER * d
    marks = Image.new("L", (n, n), 0)
    draw = ImageDraw.Draw(marks)
    w = OVER * max(2, round(d / 9))  # at least two pixels, so that a texture shows at 96 px
    if texture == "striped":
        for y in range(0, n, 2 * w):
            draw.rectangle((0, y, n, y + w - 1), fill=255)
    elif texture == "dotted":
        for y in range(w // 2, n, 2 * w):
            for x in range(w // 2, n, 2 * w):
                draw.ellipse((x - w // 8, y - w // 8, x + w + w // 8, y + w + w // 8), fill=255)
    elif texture == "checkered":
        for row, y in enumerate(range(0, n, w)):
            for x in range((row % 2) * w, n, 2 * w):
                draw.rectangle((x, y, x + w - 1, y + w - 1), fill=255)
    return marks.reduce(OVER)


def _stamp(shape: str, texture: str, d: int, rotation: int) -> tuple[Image.Image, Image.Image | None]:
    body = _draw_shape(shape, d, rotation)
    if texture == "plain":
        return body, None
    a, b = np.asarray(body, dtype=np.uint16), np.asarray(_draw_texture(texture, d), dtype=np.uint16)
    return body, Image.fromarray((a * b // 255).astype(np.uint8))


_stamp_cached = lru_cache(8192)(_stamp)


def stamp(shape: str, texture: str, d: int, rotation: int) -> tuple[Image.Image, Image.Image | None]:
    """Alpha masks (d, d) of a shape's body and of its texture's marks (None when plain)."""
    return (_stamp_cached if d <= CACHED else _stamp)(shape, texture, d, rotation)


def paint(
    picture: Image.Image,
    at: tuple[int, int],
    body: Image.Image,
    marks: Image.Image | None,
    colour: tuple[int, int, int],
) -> None:
    """Paste a shape in its colour; marks are a darker shade of it, or a lighter one on dark colours."""
    picture.paste(colour, at, body)
    if marks is not None:
        light = sum(colour) > 270
        shade = tuple(9 * v // 20 if light else min(255, 2 * v // 5 + 150) for v in colour)
        picture.paste(shade, at, marks)


def pile(bodies: Sequence[tuple[str, int, tuple[int, int], int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shapes on each other.

    Args:
        bodies: (shape, rotation, place of the top left corner, side) from back to front, in pixels as they are painted.
        size: side of the picture.

    Returns:
        int64 (size, size) each: 1 + index of the shape that covers at least half of the pixel and lies on top, 0 for none; and
        its layer, one more than the highest layer it hides anything of.
    """
    owner, layer = np.zeros((2, size, size), dtype=np.int64)
    for index, (shape, rotation, (x, y), d) in enumerate(bodies, start=1):
        solid = np.asarray(stamp(shape, "plain", d, rotation)[0])[: size - y, : size - x] > 127
        here = np.s_[y : y + d, x : x + d]
        layer[here][solid] = 1 + layer[here][solid].max(initial=0)
        owner[here][solid] = index
    return owner, layer


@lru_cache(256)
def ground_pattern(kind: int, variant: int, size: int) -> Image.Image:
    """What is added to a ground, 32 meaning nothing: 1 a gradient, 2 stripes, 3 tiles."""
    y, x = np.mgrid[0:size, 0:size]
    strength = 6 + 2 * (variant % 4)
    if kind == 1:
        along = (x, y, (x + y) // 2, (x + size - 1 - y) // 2)[variant // 4]
        value = along * (4 * strength) // size - 2 * strength
    else:
        period = max(2, (4 + variant) * size // 96)
        a, b = x // period % 2, y // period % 2
        value = strength * ((a if variant % 2 else b) if kind == 2 else (a ^ b)) - strength // 2
    return Image.fromarray(np.repeat((value + 32).clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2))


@lru_cache(64)
def noise_tile(index: int, size: int) -> Image.Image:
    """Gray noise of values 0..18, to be added with offset -9."""
    rng = np.random.Generator(np.random.PCG64(index))
    return Image.fromarray(np.repeat(rng.integers(0, 19, (size, size, 1), dtype=np.uint8), 3, axis=2))


@lru_cache(8192)
def _solid(shape: str, rotation: int, d: int) -> np.ndarray:
    return np.asarray(_stamp_cached(shape, "plain", d, rotation)[0]) > 127


def coverage(boxes: Sequence[tuple[str, int, float, float, float]], grid: int) -> np.ndarray:
    """Which shape covers most of each cell.

    Args:
        boxes: (shape, rotation, x, y, side) from back to front, in relative units.
        grid: cells per side.

    Returns:
        int64 (grid, grid): 1 + index of the shape that visibly covers most of the cell, if that is at least 35 % of it, else 0.
    """
    side = FINE * grid
    top = np.zeros((side, side), dtype=np.uint8)
    for index, (shape, rotation, x, y, d) in enumerate(boxes, start=1):
        px, py, pd = round(x * side), round(y * side), max(2, round(d * side))
        solid = _solid(shape, rotation, pd)
        view = top[py : py + pd, px : px + pd]
        view[solid[: view.shape[0], : view.shape[1]]] = index
    cells = top.reshape(grid, FINE, grid, FINE)
    best = np.zeros((grid, grid), dtype=np.int64)
    most = np.full((grid, grid), 0.35 * FINE * FINE)
    for index in range(1, len(boxes) + 1):
        covered = (cells == index).sum((1, 3))
        wins = covered > most
        best[wins] = index
        most[wins] = covered[wins]
    return best
