"""Interleaved: three pictures inside a text, each with one thing, and questions that need to know which is which.

    analysis     First <image> then <image> then <image>. What colour is the thing in the second picture?          blue
    which        First <image> then <image> then <image>. Which picture shows something red?                       first, or none
    in_context   <image> Caption: red. <image> Caption: blue. <image> Caption:                                     green

In an analysis the values of the other pictures are among the options. The captions of two examples say what a caption names:
colour, shape or texture. Two of the options in context are of that kind and two of another, and of each kind one fits the third
picture; it shows the values of the examples as often as any, so that copying them is worth nothing. Text alone tells the kind,
which is worth half: `in_context` is asked only where it is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from argus.core.formats.pictures import MARKER
from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, TEXTURES, Domain, Question
from argus.world.object_scene import ObjectsScene
from argus.world.objects import Objects, ObjectsOptions

NAMES = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES}
PLACES = ("first", "second", "third")
NONE = "none"
THEN = f"First {MARKER} then {MARKER} then {MARKER}. "


class InterleavedOptions(Options):
    """What the pictures look like."""

    ground: Literal["plain", "varied"] = Field("varied", description="plain, or with gradients, stripes and noise")


@dataclass(frozen=True, slots=True)
class InterleavedScene:
    """Three pictures of one thing each.

    Args:
        pictures: in the order in which they are shown.
        choices: of each attribute in `NAMES` the four values that are offered; the pictures' own are among them.
    """

    pictures: tuple[ObjectsScene, ...]
    choices: tuple[tuple[str, ...], ...]

    def values(self, attribute: str) -> tuple[str, ...]:
        """What the thing of each picture has."""
        return tuple(getattr(picture.things[0], attribute) for picture in self.pictures)


class Interleaved(Domain):
    """Three pictures inside a text."""

    Options = InterleavedOptions
    options: InterleavedOptions
    name = "interleaved"
    families = ("analysis", "which")
    more_families = ("in_context",)

    def __init__(self, options: InterleavedOptions) -> None:
        super().__init__(options)
        self.objects = Objects(ObjectsOptions.model_validate({"max_objects": 1, "ground": options.ground}))

    def scene(self, rng: np.random.Generator) -> InterleavedScene:
        dice = Dice(rng, 96)
        pictures = [self.objects.scene(rng) for _ in PLACES]
        choices = tuple(tuple(dice.shuffled(names)[:4]) for names in NAMES.values())
        for attribute, four in zip(NAMES, choices, strict=True):
            shown = four[0], four[1], dice.pick(four)
            pictures = [_showing(picture, attribute, value) for picture, value in zip(pictures, shown, strict=True)]
        return InterleavedScene(tuple(pictures), choices)

    def render(self, scene: InterleavedScene, size: int) -> np.ndarray:
        """The last picture."""
        return self.objects.render(scene.pictures[-1], size)

    def frames(self, scene: InterleavedScene, size: int) -> tuple[np.ndarray, ...]:
        return tuple(self.objects.render(picture, size) for picture in scene.pictures)

    def boxes(self, scene: InterleavedScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(scene.pictures[-1])

    def dense(self, scene: InterleavedScene, grid: int) -> dict[str, np.ndarray]:
        return self.objects.dense(scene.pictures[-1], grid)

    def describe(self, scene: InterleavedScene) -> str:
        return "; ".join(f"{place}: {self.objects.describe(p)}" for place, p in zip(PLACES, scene.pictures, strict=True))

    def questions(
        self, scene: InterleavedScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 1))
        return self.collect(dice, count, families, lambda family: ASK[family](scene, dice))


def _showing(picture: ObjectsScene, attribute: str, value: str) -> ObjectsScene:
    """The picture of a thing that is so, and otherwise the same."""
    thing = replace(picture.things[0], **{attribute: value})  # type: ignore[arg-type]
    return replace(picture, things=(thing,))


def _analysis(scene: InterleavedScene, dice: Dice) -> Question:
    number, place = dice(len(NAMES)), dice(len(PLACES))
    attribute = list(NAMES)[number]
    text = f"{THEN}What {attribute} is the thing in the {PLACES[place]} picture?"
    return Question("analysis", text, scene.values(attribute)[place], tuple(dice.shuffled(scene.choices[number])))


def _which(scene: InterleavedScene, dice: Dice) -> Question | None:
    number, answer = dice(len(NAMES)), dice(len(PLACES) + 1)
    attribute = list(NAMES)[number]
    values = scene.values(attribute)
    if len(set(values)) < len(values):
        return None  # two pictures would be right
    value = values[answer] if answer < len(values) else next(v for v in scene.choices[number] if v not in values)
    text = f"{THEN}Which picture shows something {f'of the {attribute} ' if attribute == 'shape' else ''}{value}?"
    return Question("which", text, (*PLACES, NONE)[answer], (*PLACES, NONE))


def _in_context(scene: InterleavedScene, dice: Dice) -> Question:
    kinds = dice.shuffled(range(len(NAMES)))[:2]
    (first, second, answer), (*_, other) = (scene.values(list(NAMES)[kind]) for kind in kinds)
    wrong = [
        dice.pick([value for value in scene.choices[kind] if value != right])
        for kind, right in zip(kinds, (answer, other), strict=True)
    ]
    text = f"{MARKER} Caption: {first}. {MARKER} Caption: {second}. {MARKER} Caption:"
    return Question("in_context", text, answer, tuple(dice.shuffled([answer, other, *wrong])))


ASK: dict[str, Callable[[InterleavedScene, Dice], Question | None]] = {
    "analysis": _analysis,
    "which": _which,
    "in_context": _in_context,
}
