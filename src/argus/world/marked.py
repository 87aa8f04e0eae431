"""Marked: scenes of `objects` in which a frame is drawn around one thing, and questions about what is in the frame.

This is referring by sight, without a word for the thing: its colour, shape, texture or size is asked, and the options hold what
the other things of the picture have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES, Domain, Question
from argus.world.object_scene import ObjectsScene, Thing
from argus.world.objects import Objects, ObjectsOptions

NAMES = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES}
WORDINGS = ("What {} is the thing in the frame?", "Name the {} of what is framed.")
MARGIN = 0.02  # of the side, between a thing's box and its frame


class MarkedOptions(Options):
    """How full scenes are."""

    max_objects: int = Field(4, ge=2, le=6, description="most things in a scene; there are at least two")


@dataclass(frozen=True, slots=True)
class MarkedScene:
    """A scene and the number of the thing that is framed."""

    picture: ObjectsScene
    number: int

    @property
    def thing(self) -> Thing:
        return self.picture.things[self.number]


class Marked(Domain):
    """Things in frames."""

    Options = MarkedOptions
    options: MarkedOptions
    name = "marked"
    families = tuple(NAMES)

    def __init__(self, options: MarkedOptions) -> None:
        super().__init__(options)
        self.objects = Objects(ObjectsOptions.model_validate({"min_objects": 2, "max_objects": options.max_objects}))

    def scene(self, rng: np.random.Generator) -> MarkedScene:
        picture = self.objects.scene(rng)
        return MarkedScene(picture, Dice(rng, 1)(len(picture.things)))

    def render(self, scene: MarkedScene, size: int) -> np.ndarray:
        pixels = self.objects.render(scene.picture, size).copy()
        x1, y1, x2, y2 = (min(size - 1, max(0, round(v * size))) for v in _frame(scene.thing))
        ink, width = (0 if sum(scene.picture.ground) > 384 else 255), max(1, size // 96)
        for rows, columns in (
            (slice(y1, y1 + width), slice(x1, x2 + 1)),
            (slice(y2 + 1 - width, y2 + 1), slice(x1, x2 + 1)),
            (slice(y1, y2 + 1), slice(x1, x1 + width)),
            (slice(y1, y2 + 1), slice(x2 + 1 - width, x2 + 1)),
        ):
            pixels[rows, columns] = ink
        return pixels

    def boxes(self, scene: MarkedScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(scene.picture)

    def dense(self, scene: MarkedScene, grid: int) -> dict[str, np.ndarray]:
        return self.objects.dense(scene.picture, grid)

    def describe(self, scene: MarkedScene) -> str:
        return f"{self.objects.describe(scene.picture)}; framed: the {scene.thing.colour} {scene.thing.shape}"

    def questions(
        self, scene: MarkedScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 32 * (count + 1))

        def ask(family: str) -> Question:
            answer = getattr(scene.thing, family)
            here = dice.shuffled(sorted({getattr(t, family) for t in scene.picture.things} - {answer}))
            absent = dice.shuffled([name for name in NAMES[family] if name not in (answer, *here)])
            options = tuple(dice.shuffled([answer, *[*here, *absent][:3]]))
            return Question(family, dice.pick(WORDINGS).format(family), answer, options, (scene.thing.box,))

        return self.collect(dice, count, families, ask)


def _frame(thing: Thing) -> tuple[float, float, float, float]:
    """The frame around a thing, relative to the picture."""
    x1, y1, x2, y2 = thing.box
    return x1 - MARGIN, y1 - MARGIN, x2 + MARGIN, y2 + MARGIN
