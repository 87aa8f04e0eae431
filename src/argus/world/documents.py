"""Documents: words and lines in several fonts and sizes.

At the default sizes words are legible at 96 px; `min_height` lowers them to what needs zooming. The truth is every word with
its place; answers are words, letters, places and boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw
from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.core.sample import box_text
from argus.world.dice import Dice
from argus.world.domain import CHARACTERS, DENSE_CLASSES, Domain, Question
from argus.world.fonts import FACES
from argus.world.raster import noise_tile
from argus.world.text import UNIT, WORDS, Line, character_cells, draw_lines, ink, lookalikes, measure, paper

ORDINALS = ("first", "second", "third")
SIGNS = CHARACTERS[:62]  # letters of both cases and digits
ALPHABET = tuple(dict.fromkeys(SIGNS.lower()))
LENGTHS = ("3", "4", "5")
BY_LENGTH = tuple(tuple(w for w in WORDS if len(w) == int(n)) for n in LENGTHS)


class DocumentsOptions(Options):
    """How much text, and how small."""

    min_words: int = Field(1, ge=1, le=40, description="fewest words")
    max_words: int = Field(4, ge=1, le=40, description="most words")
    min_height: float = Field(0.13, ge=0.01, le=0.4, description="smallest font size as a share of the side")
    max_height: float = Field(0.22, ge=0.01, le=0.4, description="largest font size as a share of the side")
    text: Literal["words", "random"] = Field("words", description="words of the lexicon, or random letters and digits")

    @model_validator(mode="after")
    def _ordered(self) -> DocumentsOptions:
        if self.min_words > self.max_words or self.min_height > self.max_height:
            raise ValueError("the minimum exceeds the maximum")
        return self


@dataclass(frozen=True, slots=True)
class DocumentsScene:
    """Words from top to bottom, one a line, no word twice."""

    words: tuple[Line, ...]
    ground: tuple[int, int, int]
    pen: tuple[int, int, int]
    noise: int


class Documents(Domain):
    """Words and lines of text in several fonts and sizes."""

    Options = DocumentsOptions
    options: DocumentsOptions
    name = "documents"
    families = ("transcript", "spell", "read", "read_place", "existence", "place", "order", "letter", "length", "locate")

    def scene(self, rng: np.random.Generator) -> DocumentsScene:
        dice = Dice(rng, 48)
        options = self.options
        wanted = options.min_words + dice(options.max_words - options.min_words + 1)
        low, high = round(options.min_height * UNIT), round(options.max_height * UNIT)
        lines: list[Line] = []
        used: set[str] = set()
        sizes = [low + dice(high - low + 1) for _ in range(wanted)]
        free = UNIT - sum(sizes)
        while sizes and free < 0:
            free += sizes.pop()
        y = 0
        for left, em in zip(range(len(sizes), 0, -1), sizes, strict=True):
            gap = dice(2 * max(1, free) // (left + 1) + 1) if free > 0 else 0
            gap = min(gap, free)
            free -= gap
            y += gap
            word = self.word(dice)
            while word in used:
                word = self.word(dice)
            used.add(word)
            shown = (word, word.capitalize(), word.upper())[(0, 0, 0, 1, 2)[dice(5)]]
            face = dice.pick(FACES)
            width = measure(shown, em, face)[2]
            while width > UNIT - 20 and em > 60:
                em = em * 9 // 10
                width = measure(shown, em, face)[2]
            lines.append(Line(shown, 10 + dice(max(1, UNIT - 20 - width)), y, em, face))
            y += em
        ground, pen = paper(dice(1 << 20), (dice(17) - 8, dice(17) - 8, dice(17) - 8))
        return DocumentsScene(tuple(lines), ground, pen, dice(16))

    def word(self, dice: Dice) -> str:
        """A word; lengths are equally frequent, so that none can be guessed."""
        length = dice(3)
        if self.options.text == "words":
            return dice.pick(BY_LENGTH[length])
        return "".join(dice.pick(SIGNS) for _ in range(int(LENGTHS[length])))

    def render(self, scene: DocumentsScene, size: int) -> np.ndarray:
        picture = Image.new("RGB", (size, size), scene.ground)
        draw_lines(ImageDraw.Draw(picture), scene.words, size, scene.pen)
        if scene.noise >= 10:
            picture = ImageChops.add(picture, noise_tile(scene.noise - 10, size), 1, -9)
        return np.asarray(picture)

    def dense(self, scene: DocumentsScene, grid: int) -> dict[str, np.ndarray]:
        truth = {head: np.full((grid, grid), -1, dtype=np.int64) for head in DENSE_CLASSES}
        truth["character"] = character_cells(scene.words, grid)
        return truth

    def describe(self, scene: DocumentsScene) -> str:
        parts = []
        for line in scene.words:
            x0, y0, x1, y1 = ink(line)
            parts.append(f"{line.text} at {int(50 * (x0 + x1))} {int(50 * (y0 + y1))}")
        return "text: " + "; ".join(parts)

    def questions(
        self, scene: DocumentsScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 1))
        return self.collect(dice, count, families, lambda family: ASK[family](self, scene, dice))


def ordinal(number: int) -> str:
    """1 -> first, 4 -> 4th, 21 -> 21st."""
    if number <= len(ORDINALS):
        return ORDINALS[number - 1]
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _word(line: Line) -> str:
    return line.text.lower()


def _variants(domain: Documents, word: str, dice: Dice) -> list[str]:
    """Words that look like this one, itself among them, from a set that does not tell which of them it was made for."""
    if domain.options.text == "words":
        return list(lookalikes(word))
    places = dice.shuffled(range(len(word)))[:2]
    forms = [word]
    for at in places:  # two letters at each of two places: four words
        other = dice.pick([s for s in ALPHABET if s != word[at]])
        forms += [form[:at] + other + form[at + 1 :] for form in forms]
    return forms


def _among(domain: Documents, answer: str, scene: DocumentsScene, dice: Dice) -> tuple[str, ...]:
    """The answer among others: words that look like it, and another word of the scene with words that look like that one."""
    others = [_word(line) for line in scene.words if _word(line) != answer]
    if not others:
        return tuple(dice.shuffled(_variants(domain, answer, dice)))
    rival = dice.pick(others)
    options = [answer, rival]
    for word in (answer, rival):
        like = [v for v in dice.shuffled(_variants(domain, word, dice)) if v not in (answer, rival)]
        options += like[:2]
    return tuple(dice.shuffled(list(dict.fromkeys(options))))


def _transcript(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    text = dice.pick(("Read all the text.", "Write down every word."))
    words = [_word(line) for line in scene.words]
    return Question("transcript", text, " ".join(words), (), tuple(ink(line) for line in scene.words), facts=tuple(words))


def _read(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    if len(scene.words) != 1:
        return None
    text = dice.pick(("What does the text say?", "Which word is written here?", "Read the word."))
    return Question(
        "read", text, _word(scene.words[0]), _among(domain, _word(scene.words[0]), scene, dice), (ink(scene.words[0]),)
    )


def _line(scene: DocumentsScene, dice: Dice) -> tuple[Line, str, str]:
    """One of the words, what it is called ("top word") and its number as a line ("first line")."""
    index, last = dice(len(scene.words)), len(scene.words) - 1
    line = scene.words[index]
    if last == 0:
        return line, "word", "line"
    if index in (0, last):
        return line, "top word" if index == 0 else "bottom word", "first line" if index == 0 else "last line"
    return line, f"{ordinal(index + 1)} word", f"line {index + 1}"


def _read_place(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    if len(scene.words) < 2:
        return None
    line, name, place = _line(scene, dice)
    text = dice.pick((f"What is the {name}?", f"Read the {place}." if "line " not in place else f"Read {place}."))
    return Question("read_place", text, _word(line), _among(domain, _word(line), scene, dice), (ink(line),))


def _spell(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    line, name, _ = _line(scene, dice)
    text = dice.pick((f"Spell the {name}.", f"Which letters has the {name}?"))
    return Question("spell", text, " ".join(_word(line)), (), (ink(line),))


def _existence(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    here = [_word(line) for line in scene.words]
    yes = dice(2) == 1
    word = dice.pick(here)
    trap = False
    if not yes:
        # Half of the absent words look like one that is there.
        trap = dice(2) == 1
        candidates = _variants(domain, word, dice) if trap else [domain.word(dice).lower() for _ in range(6)]
        absent = [w for w in candidates if w not in here]
        if not absent:
            return None
        word = dice.pick(absent)
    text = dice.pick((f'Is the word "{word}" there?', f'Does the text contain "{word}"?'))
    boxes = tuple(ink(line) for line in scene.words if _word(line) == word)
    return Question("existence", text, "yes" if yes else "no", ("yes", "no"), boxes, trap=trap)


def _place(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    line = dice.pick(scene.words)
    x0, y0, x1, y1 = ink(line)
    centre = (y0 + y1) / 2
    if min(abs(centre - 1 / 3), abs(centre - 2 / 3)) < 0.04:
        return None
    answer = ("top", "middle", "bottom")[min(2, max(0, int(3 * centre)))]
    text = dice.pick((f'Where is "{_word(line)}"?', f'In which part of the picture is "{_word(line)}"?'))
    return Question("place", text, answer, tuple(dice.shuffled(("top", "middle", "bottom"))), ((x0, y0, x1, y1),))


def _order(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    if len(scene.words) < 2:
        return None
    a, b = sorted(dice.shuffled(range(len(scene.words)))[:2])
    yes = dice(2) == 1
    upper, lower = (scene.words[a], scene.words[b]) if yes else (scene.words[b], scene.words[a])
    text = dice.pick((f'Is "{_word(upper)}" above "{_word(lower)}"?', f'Does "{_word(upper)}" come before "{_word(lower)}"?'))
    return Question("order", text, "yes" if yes else "no", ("yes", "no"), (ink(upper), ink(lower)))


def _letter(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    line = scene.words[0]
    word = _word(line)
    which = dice(4)
    at = which if which < 3 else len(word) - 1
    if at >= len(word):
        return None
    name = ORDINALS[which] if which < 3 else "last"
    place = "word" if len(scene.words) == 1 else "top word"
    others: list[str] = []
    while len(others) < 5:  # letters as frequent at this place as the answer is
        other = domain.word(dice).lower()[-1 if which == 3 else min(at, 2)]
        if other != word[at] and other not in others:
            others.append(other)
    text = dice.pick((f"What is the {name} letter of the {place}?", f"Which letter is the {name} one of the {place}?"))
    return Question("letter", text, word[at], tuple(dice.shuffled([word[at], *others])), (ink(line),))


def _length(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    line = scene.words[0]
    place = "word" if len(scene.words) == 1 else "top word"
    text = dice.pick((f"How many letters has the {place}?", f"Count the letters of the {place}."))
    return Question("length", text, str(len(line.text)), LENGTHS, (ink(line),))


def _locate(domain: Documents, scene: DocumentsScene, dice: Dice) -> Question | None:
    line = dice.pick(scene.words)
    text = dice.pick((f'Give the box of the word "{_word(line)}".', f'Locate "{_word(line)}" with a box.'))
    return Question("locate", text, box_text(ink(line)), (), (ink(line),))


ASK: dict[str, Callable[[Documents, DocumentsScene, Dice], Question | None]] = {
    "transcript": _transcript,
    "spell": _spell,
    "read": _read,
    "read_place": _read_place,
    "existence": _existence,
    "place": _place,
    "order": _order,
    "letter": _letter,
    "length": _length,
    "locate": _locate,
}
