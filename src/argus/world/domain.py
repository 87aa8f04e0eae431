"""What a domain of the world is: scenes with complete truth, a renderer, and families of questions.

A domain is one file. Everything in it is a pure function of (domain, split, index): `Domain.draw(split, index)` gives the
same scene, pixels and questions on every machine, and the splits' seeds are disjoint by construction.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from argus.core.registry import Options
from argus.world.dice import Dice

TRIES = 8  # per question wanted: scenes that have little to ask give fewer

Split = Literal["train", "validation", "test"]
SPLITS: dict[str, int] = {"train": 0, "validation": 1, "test": 2}

# Dense truth: what is at each cell of a grid laid over the picture. Class 0 is "nothing"; -1 is "not defined here".
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;%$-+/()"
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "cyan", "gray")
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = ("small", "medium", "large")
DENSE_CLASSES: dict[str, int] = {
    "colour": len(COLOURS) + 1,
    "shape": len(SHAPES) + 1,
    "texture": len(TEXTURES) + 1,
    "size": len(SIZES) + 1,
    "character": len(CHARACTERS) + 1,
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a scene.

    Args:
        family: the skill it needs, e.g. `count`; accuracy is reported per family.
        text: the question, as asked.
        answer: the one right answer.
        options: all candidate answers, the right one among them, in random order; chance is 1 / len(options).
            Empty for free answers (captions, boxes).
        boxes: relative boxes (x1, y1, x2, y2) of what must be looked at.
        trap: the question fits the scene but asks for what is not there.
        facts: the statements that the answer makes (dense captions).
        cues: what must be looked at, in words.
        drawn: scenes of the options, where these are pictures; `options` are then what stands beside each, letters as a rule.
    """

    family: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    trap: bool = False
    facts: tuple[str, ...] = ()
    cues: tuple[str, ...] = ()
    drawn: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An answered question about another picture, or without one where it says all in words."""

    text: str
    answer: str
    pixels: np.ndarray | None = None  # (H, W, 3) uint8


@dataclass(slots=True)
class Drawing:
    """A scene with its picture and questions, and what is to be shown in front of each of them."""

    id: str
    scene: Any
    pixels: np.ndarray  # (H, W, 3) uint8
    questions: list[Question] = field(default_factory=list)
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # of everything in the scene
    demonstrations: tuple[Demonstration, ...] = ()
    frames: tuple[np.ndarray, ...] | None = None  # all that is shown, where that is not one picture
    drawn: tuple[tuple[np.ndarray, ...], ...] = ()  # of each question the pictures that are its options

    @property
    def shown(self) -> tuple[np.ndarray, ...]:
        """The pictures that questions are about, in their order."""
        return (self.pixels,) if self.frames is None else self.frames


class Domain(ABC):
    """One domain of the world. Subclasses implement `scene`, `render`, `questions`, `dense` and `describe`."""

    Options: ClassVar[type[Options]]
    name: ClassVar[str]
    families: ClassVar[tuple[str, ...]]
    more_families: ClassVar[tuple[str, ...]] = ()  # asked only where they are named

    def __init__(self, options: Any) -> None:
        self.options = options

    def rng(self, split: Split, index: int, stream: int = 0) -> np.random.Generator:
        """The random generator of one scene; `stream` separates scene, pixels and questions."""
        seed = np.random.SeedSequence((zlib.crc32(self.name.encode()), SPLITS[split], index, stream))
        return np.random.Generator(np.random.PCG64(seed))

    @abstractmethod
    def scene(self, rng: np.random.Generator) -> Any:
        """Draw a scene: a dataclass that holds the complete truth, in relative coordinates."""

    @abstractmethod
    def render(self, scene: Any, size: int) -> np.ndarray:
        """Render a scene as (size, size, 3) uint8, deterministic to the byte."""

    @abstractmethod
    def questions(self, scene: Any, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()) -> list[Question]:
        """`count` questions about a scene, from the given families (all, if empty)."""

    @abstractmethod
    def dense(self, scene: Any, grid: int) -> dict[str, np.ndarray]:
        """What is at each cell: for each head of `DENSE_CLASSES` an int64 array (grid, grid)."""

    @abstractmethod
    def describe(self, scene: Any) -> str:
        """The scene in words, complete enough that every question can be answered from it."""

    def maps(self, scene: Any, size: int) -> dict[str, np.ndarray]:
        """Of each pixel of the picture, where the domain knows it: int64 maps (size, size).

        `segmentation` is the thing that owns it, from 1 in the order back to front, 0 for the ground; `depth` the layer of that
        thing: 0 the ground, 1 what lies on it, 2 what lies on such a thing, and so on; a head of `DENSE_CLASSES` its class.
        """
        return {}

    def frames(self, scene: Any, size: int) -> tuple[np.ndarray, ...] | None:
        """All pictures that are shown of a scene, in their order; None where that is the one of `render`."""
        return None

    def boxes(self, scene: Any) -> tuple[tuple[float, float, float, float], ...]:
        """Relative boxes of everything in a scene, where the domain has things; else none."""
        return ()

    def collect(self, dice: Dice, count: int, families: tuple[str, ...], ask: Callable[[str], Question | None]) -> list[Question]:
        """Up to `count` different questions of random families; `ask` gives None where a scene has nothing of a family to ask."""
        wanted = families or self.families
        asked: list[Question] = []
        for _ in range(TRIES * count):
            if len(asked) == count:
                break
            question = ask(wanted[dice(len(wanted))])
            if question is not None and all(question.text != other.text for other in asked):
                asked.append(question)
        return asked

    def draw(self, split: Split, index: int, size: int = 96, count: int = 8, families: tuple[str, ...] = ()) -> Drawing:
        """Scene, picture and questions number `index` of a split."""
        scene = self.scene(self.rng(split, index))
        questions = self.questions(scene, self.rng(split, index, 1), count, families) if count else []
        drawing = Drawing(f"{self.name}/{split}/{index}", scene, self.render(scene, size), questions, self.boxes(scene))
        drawing.frames = self.frames(scene, size)
        drawing.drawn = tuple(tuple(self.render(option, size) for option in q.drawn) for q in questions)
        return drawing
