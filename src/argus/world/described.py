"""Described: words for a picture that nobody has seen yet, and four pictures to choose from.

    picture   Draw a large red plain star at the top left.               the options are pictures alone
    both      Say and draw what comes next: red, blue, red, blue, ...    each option is a word with its picture

Nothing is shown beside the question. Wrong pictures differ from the right one in one attribute each. What is likely in words
alone, as in `both`, is asked only where it is named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES, Domain, Question
from argus.world.object_scene import PLACES, UNIT, ObjectsScene, Thing
from argus.world.objects import DIAMETERS, Objects, ObjectsOptions

LETTERS = ("A", "B", "C", "D")
WORDINGS = ("Draw {}.", "Make a picture of {}.", "Paint {}.", "What does {} look like?", "Show {}.")
NAMES = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES}


class DescribedOptions(Options):
    """What pictures look like."""

    ground: Literal["plain", "varied"] = Field("plain", description="plain, or with gradients, stripes and noise")


@dataclass(frozen=True, slots=True)
class DescribedScene:
    """A picture of one thing."""

    picture: ObjectsScene

    @property
    def thing(self) -> Thing:
        return self.picture.things[0]

    def with_(self, **changes: str) -> DescribedScene:
        """The same picture of a thing that is otherwise in these attributes; it keeps its middle."""
        thing = replace(self.thing, **changes)  # type: ignore[arg-type]
        if "size" in changes:
            d = sum(DIAMETERS[thing.size]) // 2
            x, y = (min(UNIT - d, max(0, place + (self.thing.d - d) // 2)) for place in (self.thing.x, self.thing.y))
            thing = replace(thing, x=x, y=y, d=d)
        return DescribedScene(replace(self.picture, things=(thing,)))


class Described(Domain):
    """Words for pictures, and pictures to choose from."""

    Options = DescribedOptions
    options: DescribedOptions
    name = "described"
    families = ("picture",)
    more_families = ("both",)

    def __init__(self, options: DescribedOptions) -> None:
        super().__init__(options)
        self.objects = Objects(ObjectsOptions.model_validate({"max_objects": 1, "ground": options.ground}))

    def scene(self, rng: np.random.Generator) -> DescribedScene:
        return DescribedScene(self.objects.scene(rng))

    def render(self, scene: DescribedScene, size: int) -> np.ndarray:
        return self.objects.render(scene.picture, size)

    def frames(self, scene: DescribedScene, size: int) -> tuple[np.ndarray, ...]:
        return ()

    def boxes(self, scene: DescribedScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(scene.picture)

    def dense(self, scene: DescribedScene, grid: int) -> dict[str, np.ndarray]:
        return self.objects.dense(scene.picture, grid)

    def describe(self, scene: DescribedScene) -> str:
        return self.objects.describe(scene.picture)

    def questions(
        self, scene: DescribedScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 1))
        return self.collect(dice, count, families, lambda family: {"picture": _picture, "both": _both}[family](scene, dice))


def _picture(scene: DescribedScene, dice: Dice) -> Question:
    thing = scene.thing
    place = PLACES[2 * (thing.centre[1] > 0.5) + (thing.centre[0] > 0.5)]
    words = f"a {thing.size} {thing.colour} {thing.texture} {thing.shape} at the {place}"
    wrong = [
        scene.with_(**{attribute: dice.pick([name for name in NAMES[attribute] if name != getattr(thing, attribute)])})
        for attribute in dice.shuffled(list(NAMES))[: len(LETTERS) - 1]
    ]
    drawn = dice.shuffled([scene, *wrong])
    answer = LETTERS[[option is scene for option in drawn].index(True)]
    return Question("picture", dice.pick(WORDINGS).format(words), answer, LETTERS, drawn=tuple(drawn))


def _both(scene: DescribedScene, dice: Dice) -> Question:
    """Two colours by turns; the next one, in words and as a picture."""
    colours = dice.shuffled(COLOURS)[: len(LETTERS)]
    first, answer = dice.shuffled(colours)[:2]
    text = (
        f"Say and draw the colour that comes next for the {scene.thing.shape}: {first}, {answer}, {first}, {answer}, {first}, ..."
    )
    drawn = tuple(scene.with_(colour=colour) for colour in colours)
    return Question("both", text, answer, tuple(colours), drawn=drawn)
