"""Charts: bars, lines and pies with short labels.

Every mark has a colour of its own and a one-letter label; half of the bar charts print their values. The truth is the data; a
pie's shares are multiples of five per cent, a bar's and a line's values multiples of five up to a hundred.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from argus.world.chart_questions import ASK, KINDS, ChartsOptions
from argus.world.chart_scene import PLOT, ChartsScene, colour_cells, label_place, levels, mark_boxes, shares
from argus.world.dice import Dice
from argus.world.domain import COLOURS, DENSE_CLASSES, Domain, Question
from argus.world.fonts import FACES
from argus.world.object_scene import PALETTE
from argus.world.text import UNIT, Line, character_cells, draw_lines, measure, paper

LABELS = "ABCDEFGHKLMNPRSTUVXYZ"
OVER = 2  # supersampling of marks


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
        values = shares(count, dice) if kind == "pie" else levels(kind, count, dice)
        # Gray marks would vanish on gray grounds.
        colours = tuple(dice.shuffled([c for c in COLOURS if c != "gray"])[:count])
        if kind == "line":
            colours = (colours[0],) * count
        printed = kind == "bar" and dice(2) == 1
        face, em = dice.pick(FACES), 125
        ground, pen = paper(dice(1 << 20), (dice(17) - 8, dice(17) - 8, dice(17) - 8))
        boxes = mark_boxes(kind, values)
        lines: list[Line] = []
        for label, box in zip(labels, boxes, strict=True):
            width = measure(label, em, face)[2]
            if kind == "pie":
                x, y = label_place(values, len(lines))
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
        truth["colour"] = colour_cells(scene, grid)
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
        return self.collect(dice, count, families, lambda family: ASK[family](self.options, scene, dice))
