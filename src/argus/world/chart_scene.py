"""What a chart is: its data, where its marks lie, and which colour each cell shows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from argus.world.dice import Dice
from argus.world.domain import COLOURS
from argus.world.text import UNIT, Line

PLOT = (90, 90, 870, 800)  # left, top, right, bottom of the plot area in 1/960


@dataclass(frozen=True, slots=True)
class ChartsScene:
    """Kind, data and looks. `values` are percentages for a pie; a line has one colour for all its points."""

    kind: str
    labels: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[str, ...]
    printed: bool
    lines: tuple[Line, ...]  # the labels, then the printed values
    ground: tuple[int, int, int]
    pen: tuple[int, int, int]
    boxes: tuple[tuple[float, float, float, float], ...]


def shares(count: int, dice: Dice) -> tuple[int, ...]:
    """Different multiples of five per cent, at least ten, that add up to a hundred."""
    while True:
        cuts = sorted(dice.shuffled(range(5, 100, 5))[: count - 1])
        shares = tuple(b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True))
        if min(shares) >= 10 and len(set(shares)) == count:
            return shares


def levels(kind: str, count: int, dice: Dice) -> tuple[int, ...]:
    """Multiples of five from 10 to 100 that differ by ten at least; a line rises, falls, or does neither."""
    while True:
        values = [10 + 5 * dice(19) for _ in range(count)]
        ordered = sorted(values)
        if any(b - a < 10 for a, b in pairwise(ordered)):
            continue
        trend = dice(3) if kind == "line" else 2
        if trend < 2:
            return tuple(ordered if trend == 0 else ordered[::-1])
        if kind != "line" or values not in (ordered, ordered[::-1]):
            return tuple(values)


def mark_boxes(kind: str, values: tuple[int, ...]) -> tuple[tuple[float, float, float, float], ...]:
    """Relative box of each mark: the bar, the point, or the pie's slice as the box of its middle."""
    left, top, right, bottom = PLOT
    pitch = (right - left) / len(values)
    room = bottom - top - 60
    boxes: list[tuple[float, float, float, float]] = []
    for index, value in enumerate(values):
        if kind == "pie":
            px, py = _polar(values, index, 170)
            box: tuple[float, float, float, float] = (px - 60, py - 60, px + 60, py + 60)
        else:
            x = left + pitch * (index + 0.5)
            y = bottom - room * value / 100
            half = pitch * 0.32
            box = (x - half, y, x + half, bottom) if kind == "bar" else (x - 30, y - 30, x + 30, y + 30)
        boxes.append((box[0] / UNIT, box[1] / UNIT, box[2] / UNIT, box[3] / UNIT))
    return tuple(boxes)


def _polar(values: tuple[int, ...], index: int, radius: int) -> tuple[int, int]:
    """Point in the middle direction of a slice, in 1/960, from a table of exact degrees."""
    turn = np.deg2rad(3.6 * (sum(values[:index]) + values[index] / 2) - 90)
    return round(480 + radius * float(np.cos(turn))), round(480 + radius * float(np.sin(turn)))


def label_place(values: tuple[int, ...], index: int) -> tuple[int, int]:
    """Where the label of a slice is centred, in 1/960."""
    return _polar(values, index, 395)


def colour_cells(scene: ChartsScene, grid: int) -> np.ndarray:
    """Colour class of each cell: the mark that covers at least 35 % of it."""
    fine = 4 * grid
    at = (np.arange(fine) + 0.5) / fine
    x, y = np.meshgrid(at, at)
    top = np.zeros((fine, fine), dtype=np.int64)
    ids = [1 + COLOURS.index(c) for c in scene.colours]
    if scene.kind == "pie":
        inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 <= (300 / UNIT) ** 2
        share = (np.arctan2(x - 0.5, 0.5 - y) / (2 * np.pi)) % 1.0 * 100  # clockwise from the top
        edges = np.cumsum(scene.values)
        top = np.where(inside, np.array(ids)[np.minimum(np.searchsorted(edges, share, side="right"), len(ids) - 1)], 0)
    elif scene.kind == "bar":
        for (x0, y0, x1, y1), index in zip(scene.boxes, ids, strict=True):
            top[(x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)] = index
    else:
        xs = [(b[0] + b[2]) / 2 for b in scene.boxes]
        ys = [(b[1] + b[3]) / 2 for b in scene.boxes]
        for (x0, y0), (x1, y1) in pairwise(zip(xs, ys, strict=True)):  # distance to the segment, not down to it
            along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
            along = along.clip(0, 1)
            top[np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) < 0.02] = ids[0]
    cells = top.reshape(grid, 4, grid, 4).transpose(0, 2, 1, 3).reshape(grid, grid, 16)
    best = np.zeros((grid, grid), dtype=np.int64)
    most = np.full((grid, grid), 0.35 * 16)
    for index in sorted(set(ids)):
        covered = (cells == index).sum(-1)
        best = np.where(covered > most, index, best)
        most = np.maximum(most, covered)
    return best
