"""What can be asked of a chart: one function per family of questions; None where the chart has nothing to ask of its kind."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.world.chart_scene import ChartsScene, levels
from argus.world.dice import Dice
from argus.world.domain import Question
from argus.world.object_scene import PALETTE
from argus.world.tables import numbers

KINDS = ("bar", "line", "pie")


class ChartsOptions(Options):
    """How much a chart shows."""

    min_marks: int = Field(2, ge=2, le=5, description="fewest bars, points or slices; five different shares fill a pie")
    max_marks: int = Field(4, ge=2, le=5, description="most bars, points or slices")

    @model_validator(mode="after")
    def _ordered(self) -> ChartsOptions:
        if self.min_marks > self.max_marks:
            raise ValueError(f"min_marks ({self.min_marks}) exceeds max_marks ({self.max_marks})")
        return self


def _transcript(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    if scene.kind == "line":
        text = dice.pick(("Read the labels of the chart.", "Which labels are on the axis?"))
        return Question("transcript", text, " ".join(scene.labels), (), scene.boxes, facts=scene.labels)
    text = dice.pick(("Write down the chart.", "List the parts of the chart."))
    marks = tuple(
        f"{label} {colour}" + (f" {value}" if scene.printed else "")
        for label, colour, value in zip(scene.labels, scene.colours, scene.values, strict=True)
    )
    return Question("transcript", text, "; ".join(marks), (), scene.boxes, facts=marks)


def _kind(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    text = dice.pick(("What kind of chart is this?", "Is this a bar, line or pie chart?"))
    return Question("kind", text, scene.kind, tuple(dice.shuffled(KINDS)))


def _extreme(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    largest = dice(2) == 1
    index = scene.values.index(max(scene.values) if largest else min(scene.values))
    word = "largest" if largest else "smallest"
    text = dice.pick((f"Which label has the {word} value?", f"What is the label of the {word} value?"))
    return Question("extreme", text, scene.labels[index], tuple(dice.shuffled(scene.labels)), (scene.boxes[index],))


def _value(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    if not scene.printed:
        return None
    index = dice(len(scene.values))
    text = dice.pick((f"What is the value of {scene.labels[index]}?", f"Which number belongs to {scene.labels[index]}?"))
    rival = dice.pick([v for v in scene.values if v != scene.values[index]])
    candidates = numbers(scene.values[index], rival, dice, 10, 100, (5, 10, 20))
    return Question("value", text, str(scene.values[index]), candidates, (scene.boxes[index],))


def _compare(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
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


def _difference(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
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
    p, q = levels("bar", len(scene.values), dice)[:2]  # a rival made of two bars drawn like these
    candidates = numbers(answer, abs(p - q), dice, 10, 90, (5, 10, 20))
    return Question("difference", text, str(answer), candidates, (scene.boxes[a], scene.boxes[b]))


def _trend(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    if scene.kind != "line" or options.max_marks < 3:
        return None
    values = list(scene.values)
    answer = "rising" if values == sorted(values) else "falling" if values == sorted(values)[::-1] else "neither"
    text = dice.pick(("Is the line rising, falling, or neither?", "Which trend does the line show?"))
    return Question("trend", text, answer, tuple(dice.shuffled(("rising", "falling", "neither"))))


def _colour(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    index = dice(len(scene.values))
    if scene.kind == "line":
        text, answer = "What colour is the line?", scene.colours[0]
    else:
        mark = "bar" if scene.kind == "bar" else "slice"
        text, answer = f"What colour is the {mark} of {scene.labels[index]}?", scene.colours[index]
    others = [c for c in dict.fromkeys(scene.colours) if c != answer]
    others += dice.shuffled([c for c in PALETTE if c not in (*others, answer, "gray")])
    return Question("colour", text, answer, tuple(dice.shuffled([answer, *others[:3]])), (scene.boxes[index],))


def _label(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    if scene.kind == "line":
        return None
    index = dice(len(scene.values))
    text = dice.pick((f"Which label has the {scene.colours[index]} part?", f"What is the {scene.colours[index]} one called?"))
    return Question("label", text, scene.labels[index], tuple(dice.shuffled(scene.labels)), (scene.boxes[index],))


def _marks(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
    low, high = options.min_marks, options.max_marks
    if scene.kind == "line" or low == high:
        return None
    noun = "bars" if scene.kind == "bar" else "slices"
    text = dice.pick((f"How many {noun} are there?", f"Count the {noun}."))
    return Question("marks", text, str(len(scene.values)), tuple(str(n) for n in range(low, high + 1)), scene.boxes)


def _half(options: ChartsOptions, scene: ChartsScene, dice: Dice) -> Question | None:
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


ASK: dict[str, Callable[[ChartsOptions, ChartsScene, Dice], Question | None]] = {
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
