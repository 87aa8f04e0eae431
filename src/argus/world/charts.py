"""Charts: bars, lines and pies with short labels.

Every mark has a colour of its own and a one-letter label; half of the bar charts print their values. The truth is the data; a
pie's shares are multiples of five per cent, a bar's and a line's values multiples of five up to a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, DENSE_CLASSES, Domain, Question
from argus.world.fonts import FACES
from argus.world.object_scene import PALETTE
from argus.world.tables import numbers
from argus.world.text import UNIT, Line, character_cells, draw_lines, measure, paper

KINDS = ("bar", "line", "pie")
LABELS = "ABCDEFGHKLMNPRSTUVXYZ"
OVER = 2  # supersampling of marks
PLOT = (90, 90, 870, 800)  # left, top, right, bottom of the plot area in 1/960


class ChartsOptions(Options):
    """How much a chart shows."""

    min_marks: int = Field(2, ge=2, le=5, description="fewest bars, points or slices; five different shares fill a pie")
    max_marks: int = Field(4, ge=2, le=5, description="most bars, points or slices")

    @model_validator(mode="after")
    def _ordered(self) -> ChartsOptions:
        if self.min_marks > self.max_marks:
            raise ValueError(f"min_marks ({self.min_marks}) exceeds max_marks ({self.max_marks})")
        return self


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


class Charts(Domain):
    """Bar, line and pie charts."""

    Options = ChartsOptions
    options: ChartsOptions
    name = "charts"
    families = ("transcript", "kind", "extreme", "value", "compare", "difference", "trend", "colour", "label", "marks", "half")

    def scene(self, rng: np.random.Generator) -> ChartsScene:
        dice = Dice(rng, 48)
        low, high = self.options.min_marks, self.options.max_marks
        kind = KINDS[dice(3)]
        low = max(low, 3) if kind == "line" and high >= 3 else low  # two points cannot do neither
        count = low + dice(high - low + 1)
        labels = tuple(dice.shuffled(LABELS)[:count])
        values = _shares(count, dice) if kind == "pie" else _levels(kind, count, dice)
        # Gray marks would vanish on gray grounds.
        colours = tuple(dice.shuffled([c for c in COLOURS if c != "gray"])[:count])
        if kind == "line":
            colours = (colours[0],) * count
        printed = kind == "bar" and dice(2) == 1
        face, em = dice.pick(FACES), 125
        ground, pen = paper(dice(1 << 20), (dice(17) - 8, dice(17) - 8, dice(17) - 8))
        boxes = _boxes(kind, values)
        lines: list[Line] = []
        for label, box in zip(labels, boxes, strict=True):
            width = measure(label, em, face)[2]
            if kind == "pie":
                x, y = _label_place(values, len(lines))
                lines.append(Line(label, x - width // 2, y - em * 6 // 10, em, face))
            else:
                lines.append(Line(label, int(UNIT * (box[0] + box[2]) / 2) - width // 2, 815, em, face))
        if printed:
            for value, box in zip(values, boxes, strict=True):
                width = measure(str(value), 105, face)[2]
                y = int(UNIT * box[1]) - 120
                lines.append(Line(str(value), int(UNIT * (box[0] + box[2]) / 2) - width // 2, max(0, y), 105, face))
        return ChartsScene(kind, labels, values, colours, printed, tuple(lines), ground, pen, boxes)

    def render(self, scene: ChartsScene, size: int) -> np.ndarray:
        n = size * OVER
        canvas = Image.new("RGB", (n, n), scene.ground)
        draw = ImageDraw.Draw(canvas)
        paints = [PALETTE[c] for c in scene.colours]

        def px(v: float) -> int:
            return round(v * n)

        if scene.kind == "pie":
            box = tuple(px(v / UNIT) for v in (180, 180, 780, 780))
            start = -90.0
            for value, paint in zip(scene.values, paints, strict=True):
                draw.pieslice(box, start, start + 3.6 * value, fill=paint)
                start += 3.6 * value
        else:
            left, top, right, bottom = (v / UNIT for v in PLOT)
            draw.line((px(left), px(top), px(left), px(bottom), px(right), px(bottom)), fill=scene.pen, width=max(1, n // 96))
            if scene.kind == "bar":
                for bar, paint in zip(scene.boxes, paints, strict=True):
                    draw.rectangle([px(v) for v in bar], fill=paint)
            else:
                points = [(px((b[0] + b[2]) / 2), px((b[1] + b[3]) / 2)) for b in scene.boxes]
                draw.line(points, fill=paints[0], width=max(2, n // 40))
                for x, y in points:
                    r = n // 38
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=paints[0])
        picture = canvas.reduce(OVER)
        draw_lines(ImageDraw.Draw(picture), scene.lines, size, scene.pen)
        return np.asarray(picture)

    def dense(self, scene: ChartsScene, grid: int) -> dict[str, np.ndarray]:
        truth = {head: np.full((grid, grid), -1, dtype=np.int64) for head in DENSE_CLASSES}
        truth["character"] = character_cells(scene.lines, grid)
        truth["colour"] = _colours(scene, grid)
        return truth

    def describe(self, scene: ChartsScene) -> str:
        marks = "; ".join(
            f"{label} {colour} {value}" for label, colour, value in zip(scene.labels, scene.colours, scene.values, strict=True)
        )
        return f"{scene.kind} chart: {marks}"

    def questions(
        self, scene: ChartsScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 1))
        return self.collect(dice, count, families, lambda family: ASK[family](self, scene, dice))


def _shares(count: int, dice: Dice) -> tuple[int, ...]:
    """Different multiples of five per cent, at least ten, that add up to a hundred."""
    while True:
        cuts = sorted(dice.shuffled(range(5, 100, 5))[: count - 1])
        shares = tuple(b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True))
        if min(shares) >= 10 and len(set(shares)) == count:
            return shares


def _levels(kind: str, count: int, dice: Dice) -> tuple[int, ...]:
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


def _boxes(kind: str, values: tuple[int, ...]) -> tuple[tuple[float, float, float, float], ...]:
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


def _label_place(values: tuple[int, ...], index: int) -> tuple[int, int]:
    return _polar(values, index, 395)


def _colours(scene: ChartsScene, grid: int) -> np.ndarray:
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


# -- questions


def _transcript(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    if scene.kind == "line":
        text = dice.pick(("Read the labels of the chart.", "Which labels are on the axis?"))
        return Question("transcript", text, " ".join(scene.labels), (), scene.boxes, facts=scene.labels)
    text = dice.pick(("Write down the chart.", "List the parts of the chart."))
    marks = tuple(
        f"{label} {colour}" + (f" {value}" if scene.printed else "")
        for label, colour, value in zip(scene.labels, scene.colours, scene.values, strict=True)
    )
    return Question("transcript", text, "; ".join(marks), (), scene.boxes, facts=marks)


def _kind(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    text = dice.pick(("What kind of chart is this?", "Is this a bar, line or pie chart?"))
    return Question("kind", text, scene.kind, tuple(dice.shuffled(KINDS)))


def _extreme(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    largest = dice(2) == 1
    index = scene.values.index(max(scene.values) if largest else min(scene.values))
    word = "largest" if largest else "smallest"
    text = dice.pick((f"Which label has the {word} value?", f"What is the label of the {word} value?"))
    return Question("extreme", text, scene.labels[index], tuple(dice.shuffled(scene.labels)), (scene.boxes[index],))


def _value(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    if not scene.printed:
        return None
    index = dice(len(scene.values))
    text = dice.pick((f"What is the value of {scene.labels[index]}?", f"Which number belongs to {scene.labels[index]}?"))
    rival = dice.pick([v for v in scene.values if v != scene.values[index]])
    options = numbers(scene.values[index], rival, dice, 10, 100, (5, 10, 20))
    return Question("value", text, str(scene.values[index]), options, (scene.boxes[index],))


def _compare(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    a, b = dice.shuffled(range(len(scene.values)))[:2]
    yes = dice(2) == 1
    if (scene.values[a] > scene.values[b]) != yes:
        a, b = b, a
    text = dice.pick(
        (
            f"Is {scene.labels[a]} larger than {scene.labels[b]}?",
            f"Is the value of {scene.labels[a]} above that of {scene.labels[b]}?",
        )
    )
    return Question("compare", text, "yes" if yes else "no", ("yes", "no"), (scene.boxes[a], scene.boxes[b]))


def _difference(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    if not scene.printed:
        return None
    a, b = dice.shuffled(range(len(scene.values)))[:2]
    answer = abs(scene.values[a] - scene.values[b])
    text = dice.pick(
        (
            f"By how much differ {scene.labels[a]} and {scene.labels[b]}?",
            f"What is the difference of {scene.labels[a]} and {scene.labels[b]}?",
        )
    )
    p, q = _levels("bar", len(scene.values), dice)[:2]  # a rival made of two bars drawn like these
    options = numbers(answer, abs(p - q), dice, 10, 90, (5, 10, 20))
    return Question("difference", text, str(answer), options, (scene.boxes[a], scene.boxes[b]))


def _trend(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    if scene.kind != "line" or domain.options.max_marks < 3:
        return None
    values = list(scene.values)
    answer = "rising" if values == sorted(values) else "falling" if values == sorted(values)[::-1] else "neither"
    text = dice.pick(("Is the line rising, falling, or neither?", "Which trend does the line show?"))
    return Question("trend", text, answer, tuple(dice.shuffled(("rising", "falling", "neither"))))


def _colour(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    index = dice(len(scene.values))
    if scene.kind == "line":
        text, answer = "What colour is the line?", scene.colours[0]
    else:
        mark = "bar" if scene.kind == "bar" else "slice"
        text, answer = f"What colour is the {mark} of {scene.labels[index]}?", scene.colours[index]
    others = [c for c in dict.fromkeys(scene.colours) if c != answer]
    others += dice.shuffled([c for c in PALETTE if c not in (*others, answer, "gray")])
    return Question("colour", text, answer, tuple(dice.shuffled([answer, *others[:3]])), (scene.boxes[index],))


def _label(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    if scene.kind == "line":
        return None
    index = dice(len(scene.values))
    text = dice.pick((f"Which label has the {scene.colours[index]} part?", f"What is the {scene.colours[index]} one called?"))
    return Question("label", text, scene.labels[index], tuple(dice.shuffled(scene.labels)), (scene.boxes[index],))


def _marks(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    low, high = domain.options.min_marks, domain.options.max_marks
    if scene.kind == "line" or low == high:
        return None
    noun = "bars" if scene.kind == "bar" else "slices"
    text = dice.pick((f"How many {noun} are there?", f"Count the {noun}."))
    return Question("marks", text, str(len(scene.values)), tuple(str(n) for n in range(low, high + 1)), scene.boxes)


def _half(domain: Charts, scene: ChartsScene, dice: Dice) -> Question | None:
    if scene.kind != "pie":
        return None
    index = dice(len(scene.values))
    over = [i for i, v in enumerate(scene.values) if v > 50]
    under = [i for i, v in enumerate(scene.values) if v < 45]
    yes = dice(2) == 1
    if not over or not under:
        return None  # both answers must be possible
    index = dice.pick(over if yes else under)
    text = dice.pick((f"Is {scene.labels[index]} more than half?", f"Does {scene.labels[index]} take over half of the pie?"))
    return Question("half", text, "yes" if yes else "no", ("yes", "no"), (scene.boxes[index],))


ASK: dict[str, Callable[[Charts, ChartsScene, Dice], Question | None]] = {
    "transcript": _transcript,
    "kind": _kind,
    "extreme": _extreme,
    "value": _value,
    "compare": _compare,
    "difference": _difference,
    "trend": _trend,
    "colour": _colour,
    "label": _label,
    "marks": _marks,
    "half": _half,
}
