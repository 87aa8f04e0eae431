"""Tables: names down the side, short headings on top, numbers in the cells.

The default is two or three columns by two or three rows, legible at 96 px; larger tables need larger pictures. Questions
look cells up, add and subtract, and compare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import DENSE_CLASSES, Domain, Question
from argus.world.fonts import FACES
from argus.world.text import NAMES, UNIT, Line, character_cells, draw_lines, ink, measure, paper

HEADINGS = ("age", "art", "cm", "day", "km", "kg", "win", "sum", "fee", "pts", "tax", "run")


class TablesOptions(Options):
    """How large the tables are."""

    min_rows: int = Field(2, ge=2, le=12, description="fewest rows below the heading")
    max_rows: int = Field(3, ge=2, le=12, description="most rows below the heading")
    columns: int = Field(2, ge=1, le=8, description="most columns of numbers")

    @model_validator(mode="after")
    def _ordered(self) -> TablesOptions:
        if self.min_rows > self.max_rows:
            raise ValueError(f"min_rows ({self.min_rows}) exceeds max_rows ({self.max_rows})")
        return self


@dataclass(frozen=True, slots=True)
class TablesScene:
    """The table's truth and its layout: values[r][c] belongs to rows[r] and headings[c]."""

    rows: tuple[str, ...]
    headings: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    lines: tuple[Line, ...]  # heading line by line, then each row: name, values
    style: int  # 0 ruled, 1 striped, 2 plain
    ground: tuple[int, int, int]
    pen: tuple[int, int, int]


class Tables(Domain):
    """Tables of names and numbers."""

    Options = TablesOptions
    options: TablesOptions
    name = "tables"
    families = ("transcript", "lookup", "inverse", "extreme", "compare", "arithmetic", "rows", "heading")

    def scene(self, rng: np.random.Generator) -> TablesScene:
        dice = Dice(rng, 64)
        options = self.options
        low, high = options.min_rows, options.max_rows
        count = low + dice(high - low + 1)
        rows = tuple(dice.shuffled(NAMES)[:count])
        headings = tuple(dice.shuffled(HEADINGS)[: 1 + dice(options.columns)])
        # Values of a column differ, so that extremes and comparisons have one answer.
        columns = []
        for _ in headings:
            column: list[int] = []
            while len(column) < count:
                value = dice(100) if dice(2) else dice(20)
                if value not in column:
                    column.append(value)
            columns.append(column)
        face = dice.pick(FACES)
        pitch = UNIT // (count + 1)
        em = min(150, pitch * 3 // 5, (UNIT // (len(headings) + 1)) * 45 // 100)
        width = UNIT // (len(headings) + 1)
        lines = []
        for r in range(count + 1):
            y = r * pitch + (pitch - em) // 2
            for c in range(len(headings) + 1):
                if r == 0 and c == 0:
                    continue
                text = headings[c - 1] if r == 0 else rows[r - 1] if c == 0 else str(columns[c - 1][r - 1])
                extent = measure(text, em, face)[2]
                lines.append(Line(text, c * width + max(10, (width - extent) // 2), y, em, face))
        ground, pen = paper(dice(1 << 20), (dice(17) - 8, dice(17) - 8, dice(17) - 8))
        values = tuple(tuple(column[r] for column in columns) for r in range(count))
        return TablesScene(rows, headings, values, tuple(lines), dice(3), ground, pen)

    def render(self, scene: TablesScene, size: int) -> np.ndarray:
        picture = Image.new("RGB", (size, size), scene.ground)
        draw = ImageDraw.Draw(picture)

        def edge(row: int) -> int:
            return round(row * size / (len(scene.rows) + 1))

        soft = tuple((5 * g + p) // 6 for g, p in zip(scene.ground, scene.pen, strict=True))
        if scene.style == 1:
            for r in range(1, len(scene.rows) + 1, 2):
                draw.rectangle((0, edge(r), size, edge(r + 1) - 1), fill=soft)
        elif scene.style == 0:
            for r in range(1, len(scene.rows) + 1):
                draw.line((0, edge(r), size, edge(r)), fill=soft)
            for c in range(1, len(scene.headings) + 1):
                x = c * size // (len(scene.headings) + 1)
                draw.line((x, 0, x, size), fill=soft)
        draw_lines(draw, scene.lines, size, scene.pen)
        return np.asarray(picture)

    def dense(self, scene: TablesScene, grid: int) -> dict[str, np.ndarray]:
        truth = {head: np.full((grid, grid), -1, dtype=np.int64) for head in DENSE_CLASSES}
        truth["character"] = character_cells(scene.lines, grid)
        return truth

    def describe(self, scene: TablesScene) -> str:
        rows = [
            f"{name} " + " ".join(f"{h} {v}" for h, v in zip(scene.headings, values, strict=True))
            for name, values in zip(scene.rows, scene.values, strict=True)
        ]
        return "table: " + "; ".join(rows)

    def questions(
        self, scene: TablesScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 1))
        return self.collect(dice, count, families, lambda family: ASK[family](self, scene, dice))

    def cell(self, scene: TablesScene, row: int, column: int) -> tuple[float, float, float, float]:
        """Relative ink box of a value."""
        width = len(scene.headings) + 1
        return ink(scene.lines[width * (row + 1) - 1 + column + 1])


NEAR = (1, 2, 10, 11)  # how far a near miss lies


def numbers(answer: int, rival: int, dice: Dice, low: int = 0, high: int = 99, near: tuple[int, ...] = NEAR) -> tuple[str, ...]:
    """The answer among four numbers: it, a rival, and a near miss of each.

    The rival is drawn as the answer was, and a near miss lies above or below with equal chance, so that the list looks the same
    whichever of the four is right.

    Args:
        low, high: what an answer can be; a near miss beyond lies on the other side.
        near: distances of a near miss.
    """
    options = [answer, rival]
    for number in (answer, rival):
        for _ in range(8):
            step = dice.pick(near) * (1 - 2 * dice(2))
            other = number + step if low <= number + step <= high else number - step
            if low <= other <= high and other not in options:
                options.append(other)
                break
    return tuple(str(n) for n in dice.shuffled(list(dict.fromkeys(options))))


def _transcript(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    text = dice.pick(("Write down the table.", "Read the whole table."))
    facts = tuple(
        f"{name} {heading} {value}"
        for name, values in zip(scene.rows, scene.values, strict=True)
        for heading, value in zip(scene.headings, values, strict=True)
    )
    rows = "; ".join(f"{name} {' '.join(map(str, row))}" for name, row in zip(scene.rows, scene.values, strict=True))
    return Question("transcript", text, f"{' '.join(scene.headings)}: {rows}", (), facts=facts)


def _lookup(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    r, c = dice(len(scene.rows)), dice(len(scene.headings))
    name, heading, value = scene.rows[r], scene.headings[c], scene.values[r][c]
    text = dice.pick(
        (
            f"What is the {heading} of {name}?",
            f"Which value has {name} under {heading}?",
            f"Look up {heading} for {name}.",
        )
    )
    rival = dice.pick([v for row in scene.values for v in row if v != value])
    return Question("lookup", text, str(value), numbers(value, rival, dice), (domain.cell(scene, r, c),))


def _inverse(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    r, c = dice(len(scene.rows)), dice(len(scene.headings))
    text = dice.pick(
        (
            f"Who has {scene.values[r][c]} under {scene.headings[c]}?",
            f"Whose {scene.headings[c]} is {scene.values[r][c]}?",
        )
    )
    return Question("inverse", text, scene.rows[r], tuple(dice.shuffled(scene.rows)), (domain.cell(scene, r, c),))


def _extreme(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    c, highest = dice(len(scene.headings)), dice(2) == 1
    column = [row[c] for row in scene.values]
    r = column.index(max(column) if highest else min(column))
    word = "highest" if highest else "lowest"
    text = dice.pick((f"Who has the {word} {scene.headings[c]}?", f"Which row is {word} in {scene.headings[c]}?"))
    boxes = tuple(domain.cell(scene, k, c) for k in range(len(column)))
    return Question("extreme", text, scene.rows[r], tuple(dice.shuffled(scene.rows)), boxes)


def _compare(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    c = dice(len(scene.headings))
    a, b = dice.shuffled(range(len(scene.rows)))[:2]
    yes = dice(2) == 1
    if (scene.values[a][c] > scene.values[b][c]) != yes:
        a, b = b, a
    heading = scene.headings[c]
    text = dice.pick(
        (
            f"Is the {heading} of {scene.rows[a]} higher than that of {scene.rows[b]}?",
            f"Has {scene.rows[a]} more {heading} than {scene.rows[b]}?",
        )
    )
    boxes = (domain.cell(scene, a, c), domain.cell(scene, b, c))
    return Question("compare", text, "yes" if yes else "no", ("yes", "no"), boxes)


def _arithmetic(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    c = dice(len(scene.headings))
    a, b = dice.shuffled(range(len(scene.rows)))[:2]
    x, y = scene.values[a][c], scene.values[b][c]
    if max(x, y) > 20:
        return None
    heading = scene.headings[c]
    p, q = dice.shuffled(range(21))[:2]  # the rival is made of two numbers drawn like these
    if dice(2):
        answer, rival = x + y, p + q
        text = dice.pick(
            (
                f"What is the sum of the {heading} of {scene.rows[a]} and {scene.rows[b]}?",
                f"Add the {heading} of {scene.rows[a]} and {scene.rows[b]}.",
            )
        )
    else:
        answer, rival = abs(x - y), abs(p - q)
        text = dice.pick(
            (
                f"By how much differ {scene.rows[a]} and {scene.rows[b]} in {heading}?",
                f"What is the difference in {heading} of {scene.rows[a]} and {scene.rows[b]}?",
            )
        )
    boxes = (domain.cell(scene, a, c), domain.cell(scene, b, c))
    return Question("arithmetic", text, str(answer), numbers(answer, rival, dice), boxes)


def _rows(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    low, high = domain.options.min_rows, domain.options.max_rows
    if low == high:
        return None
    text = dice.pick(("How many people are in the table?", "How many rows are below the heading?"))
    return Question("rows", text, str(len(scene.rows)), tuple(str(n) for n in range(low, high + 1)))


def _heading(domain: Tables, scene: TablesScene, dice: Dice) -> Question | None:
    c = dice(len(scene.headings))
    where = "first" if c == 0 else "second" if c == 1 else "last"
    if c > 1 and c != len(scene.headings) - 1:
        return None
    others = dice.shuffled([h for h in HEADINGS if h != scene.headings[c]])[:3]
    text = dice.pick((f"What is the heading of the {where} column of numbers?", f"What does the {where} column of numbers show?"))
    return Question(
        "heading", text, scene.headings[c], tuple(dice.shuffled([scene.headings[c], *others])), (ink(scene.lines[c]),)
    )


ASK: dict[str, Callable[[Tables, TablesScene, Dice], Question | None]] = {
    "transcript": _transcript,
    "lookup": _lookup,
    "inverse": _inverse,
    "extreme": _extreme,
    "compare": _compare,
    "arithmetic": _arithmetic,
    "rows": _rows,
    "heading": _heading,
}
