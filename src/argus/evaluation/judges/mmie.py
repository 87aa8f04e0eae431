"""MMIE: Massive Multimodal Interleaved Comprehension Benchmark for Large Vision-Language Models (arXiv 2410.10139).

A judge that was tuned for it reads question and answer, texts and pictures, with the rubric of the item's category, writes
feedback and gives 0 to 6. Numbers are means in percent of 6 over all valid scores; SA, PBL and MSR weigh by their items.

    n = 0;  per part of the question:  text, then "Image-n: <picture>", n += 1
            per part of the answer:    text; stop if n > 2; "Image-n: <picture>", n += 1; stop if n > 2
    an item with more than 4 pictures is left out
    score = round(first number behind "### Score"), to the even neighbour; no number, or none from 0 to 6: not counted

`mmie` is the published script, whose quirks are part of its numbers: all that an answer says behind the third picture is
lost, a question with three pictures leaves nothing but the answer's first text, and "### Score (0-6)\\n4" is read as 0. The
ratios `cut`, `left out` and `invalid` count them. `mmie_strict` shows everything, reads the last number (a denominator as in
"4/6" is none) and is another metric. The script looks for SA, PBL and MSR anywhere in an id, in this order, the strict one at
its beginning. Rubrics are in our words.

An answer in words alone may still score well, since rubrics accept descriptions: `text only` counts these. Judges agree
weakly with people (Pearson 0.11 on the published 200), so a judge's own quality belongs beside its scores: the metric
`pearson`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from PIL.Image import Image
from pydantic import Field

from argus.core.errors import DataError
from argus.core.images import load_image
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.interleaved import read, without_pictures
from argus.evaluation.judges.asked import Request, UnreadableError, Verdict
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions
from argus.world.telling import drawn

CATEGORIES = {"SA": "story", "PBL": "method", "MSR": "maths"}  # part of the id -> rubric, in the script's order
BEST = 6
ENOUGH, MOST = 2, 4  # pictures behind which an answer is cut; of an item that is judged
MARK = "\ue000"  # stands for a picture in a filled prompt
_FIRST = re.compile(r"### Score.*?(-?\d+(?:\.\d+)?)", re.DOTALL)
_SCALE = re.compile(r"\d+\s*[-–]\s*\d+|(?:/|out of)\s*\d+")  # what a score is out of
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class MMIEOptions(JudgeOptions):
    """Options of the judges."""

    tries: int = Field(1, ge=1, le=20, description="most times a reply that cannot be read is asked for")


@dataclass(slots=True)
class Flat:
    """Question and answer as the judge gets them.

    Args:
        question, answer: texts, in which `MARK` stands for the next picture.
        images: the pictures.
        cut: whether something of the answer is missing.
    """

    question: str = ""
    answer: str = ""
    images: list[Path | bytes | Image] = field(default_factory=list)
    cut: bool = False

    def shown(self, part: ImagePart | None) -> str:
        """A picture's line; nothing where there is none, or none that can be read."""
        try:
            if part is None or not load_image(part.image):
                return ""
        except DataError:
            return ""
        self.images.append(part.image)
        return f"Image-{len(self.images) - 1}: {MARK}\n"


def flattened(question: Sequence[Part], answer: Sequence[Part], enough: int | None = ENOUGH) -> Flat:
    """Question and answer, one behind the other.

    Args:
        enough: the answer ends as soon as there are more pictures; nothing is cut when None.
    """
    flat = Flat()
    for text, picture in pairs(question):
        flat.question += text + flat.shown(picture)
    told = pairs(answer)
    for place, (text, picture) in enumerate(told):
        flat.answer += text
        if enough is None or len(flat.images) <= enough:
            flat.answer += flat.shown(picture)
            picture = None
        if enough is not None and len(flat.images) > enough:
            flat.cut = picture is not None or place + 1 < len(told)
            break
    return flat


def pairs(parts: Sequence[Part]) -> list[tuple[str, ImagePart | None]]:
    """Parts as the benchmark has them: a text with the picture behind it, either of them missing."""
    found: list[tuple[str, ImagePart | None]] = []
    for part in parts:
        if isinstance(part, TextPart):
            found.append((f"{part.text.replace(MARK, '')}\n", None))
        elif isinstance(part, ImagePart):
            text = found.pop()[0] if found and found[-1][1] is None else ""
            found.append((text, part))
    return found


class MMIE(Judge):
    """The published script."""

    Options = MMIEOptions
    options: MMIEOptions
    name = "mmie"
    unit = "points"
    fields = ("rubric", "question", "answer", "correct", "reference")
    enough: ClassVar[int | None] = ENOUGH

    def category(self, sample: Sample) -> str | None:
        """The category that an id names."""
        return next((name for name in CATEGORIES if name in sample.id), None)

    def applies(self, sample: Sample) -> bool:
        """Items of a category."""
        return self.category(sample) is not None

    def flat(self, sample: Sample, answer: str) -> Flat:
        """What the judge gets."""
        parts = read(answer, drawn)
        return flattened(sample.messages[-1].content, parts, self.enough)

    def left_out(self, flat: Flat) -> bool:
        """Whether an item is not judged."""
        return len(flat.images) > MOST

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        flat = self.flat(sample, answer)
        if self.left_out(flat):
            return []
        category = self.category(sample) or ""
        correct = self.filled("correct", reference=str(sample.target)) if category == "MSR" else ""
        rubric = self.prompt[CATEGORIES[category]]
        user = self.filled("user", rubric=rubric, question=flat.question, answer=flat.answer, correct=correct)
        pictures = iter(flat.images)
        parts: list[Part] = []
        for place, text in enumerate(user.split(MARK)):
            parts += [ImagePart(next(pictures))] if place else []
            parts.append(TextPart(text))
        return [Request(sample.id, [Message("user", parts)], (answer,), tuple(sample.metadata.get("facts") or ()))]

    def number(self, reply: str) -> float | None:
        """The number that a reply gives."""
        found = _FIRST.search(reply)
        return float(found[1]) if found else None

    def read(self, reply: str) -> int:
        number = self.number(reply)
        if number is None:
            raise UnreadableError("no number stands behind '### Score'")
        if not 0 <= round(number) <= BEST:
            raise UnreadableError(f"{number:g} is no score from 0 to {BEST}")
        return round(number)

    def spoken(self, grades: Sequence[float]) -> str:
        return f"By rule.\n### Score\n{round(BEST * grades[0])}"

    def judge(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Judgement]:
        found = super().judge(samples, answers)
        for judgement, sample, answer in zip(found, samples, answers, strict=True):
            flat = self.flat(sample, answer)
            counted = {"left out": self.left_out(flat), "cut": flat.cut, "text only": without_pictures(answer)}
            judgement.ratios |= {name: (float(count), 1.0) for name, count in counted.items()}
        return found

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        if not verdicts:
            return Judgement(None, None)
        (verdict,) = verdicts
        ratios = {"invalid": (float(verdict.value is None), 1.0)}
        if verdict.value is None:
            return Judgement(None, None, ratios, verdicts)
        percent = 100 * verdict.value / BEST
        ratios |= {"score": (float(verdict.value), 1.0), str(self.category(sample)): (percent, 1.0)}
        return Judgement(percent, str(verdict.value), ratios, verdicts)

    def worth(self, label: str) -> float:
        return 100 * float(label) / BEST

    def ratio_unit(self, name: str) -> str:
        return self.unit if name in ("score", *CATEGORIES) else "share"


class MMIEStrict(MMIE):
    """Nothing is cut, left out or misread: another measure."""

    name = "mmie_strict"
    enough = None

    def __init__(self, options: MMIEOptions) -> None:
        own = Path(__file__).parent / "prompts" / f"{MMIE.name}.yaml"
        super().__init__(options.model_copy(update={"prompt": options.prompt or own}))

    def category(self, sample: Sample) -> str | None:
        return next((name for name in CATEGORIES if sample.id.startswith(name)), None)

    def applies(self, sample: Sample) -> bool:
        """Items of a category, those of reasoning with their reference."""
        return super().applies(sample) and not (self.category(sample) == "MSR" and sample.target is None)

    def left_out(self, flat: Flat) -> bool:
        return False

    def number(self, reply: str) -> float | None:
        found = _NUMBER.findall(_SCALE.sub(" ", reply.rpartition("### Score")[2])) if "### Score" in reply else []
        return float(found[-1]) if found else None
