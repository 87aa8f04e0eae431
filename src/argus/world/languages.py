"""Languages: sentences about seven topics in made-up languages, beside icons of the topics.

One grammar, and a vocabulary of 48 notions: five nouns of each topic, six modifiers and six verbs that all topics share, and the
language's own name. A language is a cipher: each notion is a word of two syllables that no other language has.

    modifier noun verb noun           fornu pentis forre forbo          both nouns belong to the topic

Languages 0 to 3 are drawn with the frequencies 1, 1/4, 1/16 and 1/64: what a model knows of one is what it met of it. Language
4 has the frequency 0. Its words are dealt anew in every scene, so that a score in it is a mean over unseen ciphers and not one
cipher's luck.

The picture shows four quarters, each with k icons of one topic. A topic's icon is a shape; its ten icons differ in colour,
texture and size. Tasks are those of MVL-SIB (arXiv 2502.12852): `s2i` sentences -> quarter, `i2s` quarter -> sentence, and in
text alone `s2t` sentences -> topic and `t2s` topic -> sentence, in which the quarters' topics play no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES, Domain, Question
from argus.world.object_scene import PALETTE, PLACES
from argus.world.raster import coverage, paint, stamp

# Topic -> its icon's shape.
TOPICS = {
    "entertainment": "star",
    "geography": "triangle",
    "health": "cross",
    "politics": "square",
    "science": "ring",
    "sports": "circle",
    "travel": "diamond",
}
NAMES = tuple(TOPICS)
ICONS = 10  # per topic
NOUNS, MODIFIERS, VERBS = 5, 6, 6  # nouns per topic; one more notion is the language's name
# Any first syllable with any second one is two tokens of argus/tiny-vlm; four first syllables are a language's own.
FIRST = ("bar bel bus det", "dot fir for lar", "mil nut pan pat", "pen pot pur run", "sun ten tin ver")
SECOND = "be bo is le me na ne or ri ru um ve".split()
FREQUENCIES = (1.0, 1 / 4, 1 / 16, 1 / 64, 0.0)
UNSEEN = FREQUENCIES.index(0.0)
GROUND = (236, 236, 236)
INSIDE = 0.84  # share of its cell that the largest icon fills
FILL = {"small": 0.7, "medium": 0.85, "large": 1.0}


class LanguagesOptions(Options):
    """Which language, and how many sentences and icons show a topic."""

    language: Literal[0, 1, 2, 3, 4] | None = Field(
        None, description="language of all scenes, 0 the most frequent and 4 the unseen one; drawn by frequency when not given"
    )
    sentences: int = Field(1, ge=1, le=5, description="k: sentences that are given in s2i and s2t")
    icons: int = Field(1, ge=1, le=4, description="k: icons in a quarter")


@dataclass(frozen=True, slots=True)
class LanguagesScene:
    """What is shown, and in which language it is talked about.

    Args:
        topics: of the quarters, top left, top right, bottom left, bottom right.
        icons: numbers of the icons in each quarter.
        words: of the 48 notions: the topics' nouns in order, modifiers, verbs, the language's name.
    """

    language: int
    topics: tuple[int, ...]
    icons: tuple[tuple[int, ...], ...]
    words: tuple[str, ...]


class Languages(Domain):
    """Sentences of made-up languages for icons of topics."""

    Options = LanguagesOptions
    options: LanguagesOptions
    name = "languages"
    families = ("s2i", "i2s")
    more_families = ("s2t", "t2s")

    def scene(self, rng: np.random.Generator) -> LanguagesScene:
        dice = Dice(rng, 120)
        ends = np.cumsum(FREQUENCIES) / sum(FREQUENCIES)
        drawn = int(np.searchsorted(ends, (dice(1 << 30) + 0.5) / (1 << 30)))
        language = drawn if self.options.language is None else self.options.language
        topics = tuple(dice.shuffled(range(len(NAMES)))[: len(PLACES)])
        icons = tuple(tuple(dice.shuffled(range(ICONS))[: self.options.icons]) for _ in topics)
        order = dice.shuffled(range(len(FIRST[0].split()) * len(SECOND)))
        return LanguagesScene(language, topics, icons, cipher(language, tuple(order) if language == UNSEEN else None))

    def render(self, scene: LanguagesScene, size: int) -> np.ndarray:
        picture = Image.new("RGB", (size, size), GROUND)
        for topic, number, x, y, d in _placed(scene):
            side = max(6, round(d * size))
            texture, _ = _look(number)
            body, marks = stamp(TOPICS[NAMES[topic]], texture, side, 0)
            paint(picture, (round(x * size), round(y * size)), body, marks, PALETTE[COLOURS[number]])
        return np.asarray(picture)

    def boxes(self, scene: LanguagesScene) -> tuple[tuple[float, float, float, float], ...]:
        return tuple((x, y, x + d, y + d) for _, _, x, y, d in _placed(scene))

    def dense(self, scene: LanguagesScene, grid: int) -> dict[str, np.ndarray]:
        placed = list(_placed(scene))
        top = coverage([(TOPICS[NAMES[topic]], 0, x, y, d) for topic, _, x, y, d in placed], grid)
        looks = [_look(number) for _, number, *_ in placed]
        tables = {
            "colour": [1 + number for _, number, *_ in placed],
            "shape": [1 + SHAPES.index(TOPICS[NAMES[topic]]) for topic, *_ in placed],
            "texture": [1 + TEXTURES.index(texture) for texture, _ in looks],
            "size": [1 + SIZES.index(size) for _, size in looks],
            "character": [0] * len(placed),
        }
        return {head: np.array([0, *ids], dtype=np.int64)[top] for head, ids in tables.items()}

    def describe(self, scene: LanguagesScene) -> str:
        shown = "; ".join(f"{NAMES[topic]} at the {place}" for topic, place in zip(scene.topics, PLACES, strict=True))
        nouns = "; ".join(f"{NAMES[t]}: {', '.join(scene.words[NOUNS * t : NOUNS * (t + 1)])}" for t in range(len(NAMES)))
        return f"{shown}. Words of {nouns}"

    def questions(
        self, scene: LanguagesScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice, wanted = Dice(rng, 64 * (count + 2)), families or self.families
        asked: dict[tuple[str, str], Question] = {}  # one quarter may be asked about twice, for other sentences
        while len(asked) < count:
            question = self.ask(scene, wanted[dice(len(wanted))], dice)
            asked.setdefault((question.text, question.answer), question)
        return list(asked.values())

    def ask(self, scene: LanguagesScene, family: str, dice: Dice) -> Question:
        """A question of a family; every scene has some of each."""
        place = dice(len(PLACES))
        if family in ("s2i", "i2s"):
            topic, others = scene.topics[place], [t for t in scene.topics if t != scene.topics[place]]
        else:
            topic, *others = dice.shuffled(range(len(NAMES)))[: len(PLACES)]
        boxes = self.boxes(scene)[place * self.options.icons : (place + 1) * self.options.icons]
        if family in ("s2i", "s2t"):
            given = " ".join(self.sentence(scene, topic, dice) + "." for _ in range(self.options.sentences))
            if family == "s2i":
                return Question(family, f"{given} Where is it?", PLACES[place], tuple(dice.shuffled(PLACES)), boxes)
            options = tuple(dice.shuffled([NAMES[t] for t in (topic, *others)]))
            return Question(family, f"{given} Which kind is it?", NAMES[topic], options)
        answer, wrong = self.sentence(scene, topic, dice), [self.sentence(scene, t, dice) for t in others]
        options = tuple(dice.shuffled([answer, *wrong]))
        language = scene.words[-1]  # its name, which says in what the answer is to be
        if family == "i2s":
            return Question(family, f"Read the {PLACES[place]} in {language}.", answer, options, boxes)
        return Question(family, f"Read {NAMES[topic]} in {language}.", answer, options)

    def sentence(self, scene: LanguagesScene, topic: int, dice: Dice) -> str:
        """A random sentence about a topic, in the scene's language."""
        shared = NOUNS * len(NAMES)
        first, second = dice.shuffled(range(NOUNS))[:2]
        ids = (shared + dice(MODIFIERS), NOUNS * topic + first, shared + MODIFIERS + dice(VERBS), NOUNS * topic + second)
        return " ".join(scene.words[i] for i in ids)


@lru_cache(maxsize=len(FIRST))
def _words(language: int) -> tuple[str, ...]:
    """All words that a language has."""
    return tuple(first + second for first in FIRST[language].split() for second in SECOND)


def cipher(language: int, order: tuple[int, ...] | None = None) -> tuple[str, ...]:
    """The words of the 48 notions in a language; `order` deals them otherwise than the language's own cipher does."""
    words = _words(language)
    dealt = np.random.Generator(np.random.PCG64(language)).permutation(len(words)) if order is None else order
    return tuple(words[i] for i in dealt)


def _look(icon: int) -> tuple[str, str]:
    """Texture and size of icon number `icon` of a topic; its colour is that of the same number."""
    return TEXTURES[icon % len(TEXTURES)], SIZES[icon % len(SIZES)]


def _placed(scene: LanguagesScene) -> list[tuple[int, int, float, float, float]]:
    """(topic, icon, x, y, side) of every icon, in relative units."""
    cells = 1 if len(scene.icons[0]) == 1 else 2  # per side of a quarter
    cell, out = 0.5 / cells, []
    for place, (topic, icons) in enumerate(zip(scene.topics, scene.icons, strict=True)):
        for n, icon in enumerate(icons):
            d = cell * INSIDE * FILL[_look(icon)[1]]
            x = 0.5 * (place % 2) + cell * (n % cells) + (cell - d) / 2
            y = 0.5 * (place // 2) + cell * (n // cells) + (cell - d) / 2
            out.append((topic, icon, x, y, d))
    return out
