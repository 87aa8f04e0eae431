"""Novel: what a colour is called in a language that was made up for this one picture.

An episode has a picture of things in one colour, and a few demonstrations: other pictures, each in another colour, with the
word for it. The question is what the first picture's colour is called, and the answer says the colour and then its word. Words
are drawn anew for every episode, so nothing but its demonstrations says what they mean; the picture's colour is one of those
that were shown. Episodes, their words included, are pure functions of the index like every scene.

    [blue star] Name this colour. mi    [red ring] Name this colour. tex    [blue heart] Name this colour. -> blue mi

The demonstrations of pictures don't say their colour: that has to be seen. With `told: demonstrations` they do ("Name blue.
blue mi") and show no picture. With `told: all` so do questions, which then ask about any colour that was shown and need no
picture: what can be learned, and asked, in text alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, Demonstration, Domain, Drawing, Question, Split
from argus.world.object_scene import ObjectsScene
from argus.world.objects import Objects, ObjectsOptions

WORDS = tuple("bo co di le mi mu ne ri ro se si bel det hig mil tex".split())  # short, so that tokenizers leave them whole
WORDINGS = ("Name {}.", "What is {} called?", "Which word is {}?", "What do they call {}?", "Say {}.")
THIS = "this colour"


class NovelOptions(Options):
    """How long and how full episodes are."""

    demonstrations: int = Field(4, ge=2, le=len(COLOURS), description="demonstrations of an episode, each of its own colour")
    told: Literal["nothing", "demonstrations", "all"] = Field(
        "nothing", description="what is told in words and shows no picture: nothing, the demonstrations, or the questions, too"
    )
    wordings: int = Field(len(WORDINGS), ge=1, le=len(WORDINGS), description="ways to ask that are used")
    max_objects: int = Field(3, ge=1, le=6, description="most things in a picture")
    ground: Literal["plain", "varied"] = Field("varied", description="plain, or with gradients, stripes and noise")


@dataclass(frozen=True, slots=True)
class NovelScene:
    """An episode.

    Args:
        picture: what is asked about, all things in one colour.
        shown: the demonstrations' pictures.
        words: (colour, word) of each demonstration.
        wordings: how each demonstration asks.
    """

    picture: ObjectsScene
    shown: tuple[ObjectsScene, ...]
    words: tuple[tuple[str, str], ...]
    wordings: tuple[str, ...]

    @property
    def colour(self) -> str:
        return self.picture.things[0].colour


class Novel(Domain):
    """Made-up words for colours, known from demonstrations alone."""

    Options = NovelOptions
    options: NovelOptions
    name = "novel"
    families = ("word",)

    def __init__(self, options: NovelOptions) -> None:
        super().__init__(options)
        self.wordings = WORDINGS[: options.wordings]
        self.objects = Objects(ObjectsOptions.model_validate({"max_objects": options.max_objects, "ground": options.ground}))

    def scene(self, rng: np.random.Generator) -> NovelScene:
        dice, count = Dice(rng, 64), self.options.demonstrations
        colours, words = dice.shuffled(COLOURS)[:count], dice.shuffled(WORDS)[:count]
        asked = dice.pick(colours)
        wordings = tuple(dice.pick(self.wordings) for _ in range(count))
        picture, *shown = (self._coloured(colour, rng) for colour in (asked, *colours))
        return NovelScene(picture, tuple(shown), tuple(zip(colours, words, strict=True)), wordings)

    def _coloured(self, colour: str, rng: np.random.Generator) -> ObjectsScene:
        scene = self.objects.scene(rng)
        return replace(scene, things=tuple(replace(thing, colour=colour) for thing in scene.things))

    def render(self, scene: NovelScene, size: int) -> np.ndarray:
        return self.objects.render(scene.picture, size)

    def boxes(self, scene: NovelScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(scene.picture)

    def dense(self, scene: NovelScene, grid: int) -> dict[str, np.ndarray]:
        return self.objects.dense(scene.picture, grid)

    def describe(self, scene: NovelScene) -> str:
        called = "; ".join(f"{colour} is called {word}" for colour, word in scene.words)
        return f"{called}; {self.objects.describe(scene.picture)}"

    def questions(
        self, scene: NovelScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice, words, told = Dice(rng, 16 * (count + 2)), dict(scene.words), self.options.told == "all"

        def ask(family: str) -> Question:
            colour = dice.pick(list(words)) if told else scene.colour
            options = tuple(f"{colour} {word}" for word in dice.shuffled(list(words.values())))
            text = dice.pick(self.wordings).format(colour if told else THIS)
            return Question(family, text, f"{colour} {words[colour]}", options, () if told else self.boxes(scene))

        return self.collect(dice, count, families, ask)

    def draw(self, split: Split, index: int, size: int = 96, count: int = 8, families: tuple[str, ...] = ()) -> Drawing:
        drawing = super().draw(split, index, size, count, families)
        scene, told = drawing.scene, self.options.told != "nothing"
        drawing.demonstrations = tuple(
            Demonstration(asks.format(colour), f"{colour} {word}", None)
            if told
            else Demonstration(asks.format(THIS), word, self.objects.render(shown, size))
            for shown, asks, (colour, word) in zip(scene.shown, scene.wordings, scene.words, strict=True)
        )
        return drawing
