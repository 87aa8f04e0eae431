"""Dialogues about albums of drawn scenes, in the form of MMDU (arXiv 2406.11833), with an exact answer to every turn.

The first turn shows all pictures; turns are of three kinds:

    one image        In Image2: What colour is the star?                    a question of the domain
    several images   Which image shows more red things, Image1 or Image3?   the counts differ, and either is as likely
    earlier answer   How many things does that image show?                  right behind one of the second kind
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from PIL import Image
from pydantic import Field, model_validator

from argus.core.errors import RecipeError
from argus.core.registry import Options, build
from argus.evaluation.scenarios.base import Group, Scenario
from argus.evaluation.scenarios.mmdu import MARKER, dialogue
from argus.evaluation.scenarios.world import SEED_STRIDE
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES

MOST = 6  # pictures of an album
ONE, SEVERAL, EARLIER = "one image", "several images", "earlier answer"
FAMILIES = ("colour", "shape", "size", "texture", "existence", "count", "position")


class MMDUWorldOptions(Options):
    """Options of the scenario."""

    split: Literal["train", "validation", "test"] = Field("test", description="whose scenes are drawn")
    size: int = Field(96, ge=32, le=2048, description="side of the pictures in pixels")
    min_pictures: int = Field(2, ge=2, le=MOST, description="fewest pictures of an album")
    max_pictures: int = Field(4, ge=2, le=MOST, description="most pictures of an album")
    turns: int = Field(6, ge=1, le=27, description="turns of a dialogue")
    settings: dict[str, Any] = Field(default_factory=dict, description="options of the domain `objects`")

    @model_validator(mode="after")
    def _ordered(self) -> MMDUWorldOptions:
        if self.min_pictures > self.max_pictures:
            raise ValueError(f"min_pictures {self.min_pictures} exceeds max_pictures {self.max_pictures}")
        return self


class MMDUWorld(Scenario):
    """Draws as many albums as the turns need."""

    Options = MMDUWorldOptions
    options: MMDUWorldOptions

    def __init__(self, options: MMDUWorldOptions) -> None:
        super().__init__(options)
        self.domain = build("domain", "objects", options.settings)

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        if samples is None:
            raise RecipeError("the world has no end; say how many samples", where="scenario 'mmdu_world'")
        index = seed * SEED_STRIDE // MOST
        while samples > 0:
            group = self.album(index)
            yield Group(group.id, group.samples[:samples])
            samples -= len(group.samples)
            index += 1

    def album(self, index: int) -> Group:
        """The dialogue of one album; its pictures are scenes `6 index`, `6 index + 1`, ..."""
        o = self.options
        dice = Dice(self.domain.rng(o.split, index, 2), 64 * (o.turns + 1))
        count = o.min_pictures + dice(o.max_pictures - o.min_pictures + 1)
        drawings = [self.domain.draw(o.split, MOST * index + k, o.size, o.turns, FAMILIES) for k in range(count)]
        scenes = [drawing.scene for drawing in drawings]
        unasked = [(k, question) for k, drawing in enumerate(drawings) for question in drawing.questions]
        turns: list[tuple[str, str]] = []
        kinds: list[str] = []
        named = -1  # the picture that the last turn asked for
        while len(turns) < o.turns:
            compared = _compared(scenes, dice) if dice(2) and named < 0 else None
            if named >= 0:
                kinds.append(EARLIER)
                turns.append(("How many things does that image show?", str(len(scenes[named].things))))
                named = -1
            elif compared:
                text, named = compared
                kinds.append(SEVERAL)
                turns.append((text, f"Image{named + 1}"))
            else:
                k, question = unasked.pop(dice(len(unasked)))
                kinds.append(ONE)
                turns.append((f"In Image{k + 1}: {question.text}", question.answer))
        shown = "".join(f"Image{k + 1}: {MARKER}\n" for k in range(count))
        turns[0] = shown + turns[0][0], turns[0][1]
        name = f"album/{o.split}/{index}"
        return dialogue(name, turns, [Image.fromarray(d.pixels) for d in drawings], name, families=kinds)


def _compared(scenes: list[Any], dice: Dice) -> tuple[str, int] | None:
    """A question that compares two pictures and the number of the one asked for; None where all are alike in everything."""
    pairs = []
    for attribute, names in (("colour", COLOURS), ("shape", SHAPES)):
        for name in names:
            counts = [sum(getattr(t, attribute) == name for t in scene.things) for scene in scenes]
            pairs += [(attribute, name, a, b) for a in range(len(scenes)) for b in range(a) if counts[a] != counts[b]]
    if not pairs:
        return None
    attribute, name, a, b = dice.pick(pairs)
    if dice(2):
        a, b = b, a
    first, second = (sum(getattr(t, attribute) == name for t in scenes[k].things) for k in (a, b))
    more = dice(2) == 1
    things = f"{name} things" if attribute == "colour" else f"things of the shape {name}"
    wanted = a if (first > second) == more else b
    return f"Which image shows {'more' if more else 'fewer'} {things}, Image{a + 1} or Image{b + 1}?", wanted
