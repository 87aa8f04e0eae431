"""The world as a stream of drawings and samples: mixtures, conversations, priors."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from argus.core.formats.pictures import MARKER, split_markers
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.world.domain import Demonstration, Domain, Drawing, Question, Split

DEMONSTRATED = "demonstrated"  # metadata: answers in front of the last picture are demonstrations


def mixture(
    domains: Mapping[str, float], options: Mapping[str, Mapping[str, object]] | None = None
) -> list[tuple[Domain, float]]:
    """Domains built from their options, each with the upper end of its share of [0, 1)."""
    ends = np.cumsum(list(domains.values())) / sum(domains.values())
    built = [build("domain", name, (options or {}).get(name)) for name in domains]
    return [(domain, float(end)) for domain, end in zip(built, ends, strict=True)]


def choose(domains: list[tuple[Domain, float]], index: int) -> Domain:
    """The domain of item `index`: a hash of the index decides, so a mixture is even at every scale and the same everywhere."""
    unit = zlib.crc32(index.to_bytes(8, "little")) / 2**32
    return next((domain for domain, end in domains if unit < end), domains[-1][0])


def drawings(
    domains: Mapping[str, float], split: Split, start: int, count: int, *, size: int = 96, questions: int = 8
) -> Iterator[tuple[Drawing, Domain]]:
    """Drawings `start`..`start + count` of a mixture of domains."""
    mixed = mixture(domains)
    for index in range(start, start + count):
        domain = choose(mixed, index)
        yield domain.draw(split, index, size, questions), domain


def conversation(drawing: Drawing) -> Sample:
    """All questions of a drawing as one conversation; the first turn, behind any demonstrations, shows the pictures.

    A question with markers shows them itself.
    """
    pictures = [Image.fromarray(pixels) for pixels in drawing.shown]
    messages = [message for shown in drawing.demonstrations for message in demonstrated(shown)]
    for index, question in enumerate(drawing.questions):
        shows = index == 0 or MARKER in question.text
        messages.append(Message("user", asked(question, pictures if shows else [])))
        messages.append(Message("assistant", [TextPart(question.answer)]))
    known: dict[str, Any] = {"scene_boxes": drawing.boxes, "question_boxes": [q.boxes for q in drawing.questions]}
    known |= {DEMONSTRATED: True} if drawing.demonstrations else {}
    return Sample(drawing.id, messages, metadata={"picture": drawing.id, "domain": drawing.id.split("/")[0], **known})


def table_rows(drawing: Drawing) -> Iterator[Sample]:
    """Each question of a drawing by itself, with what a table has columns for."""
    pictures = [Image.fromarray(pixels) for pixels in drawing.shown]
    for number, question in enumerate(drawing.questions):
        turn = Message("user", asked(question, pictures))
        known = {"category": question.family}
        yield Sample(f"{drawing.id}/{number}", [turn], question.answer, list(question.options), known)


def asked(question: Question, pictures: Sequence[Image.Image]) -> list[Part]:
    """A question behind its pictures, or with each where its marker stands."""
    if MARKER in question.text:
        return split_markers(question.text, [*pictures], question.family)
    return [*map(ImagePart, pictures), TextPart(question.text)]


def demonstrated(shown: Demonstration) -> list[Message]:
    """A demonstration as a turn and its answer."""
    picture = [] if shown.pixels is None else [ImagePart(Image.fromarray(shown.pixels))]
    return [Message("user", [*picture, TextPart(shown.text)]), Message("assistant", [TextPart(shown.answer)])]


@dataclass(frozen=True, slots=True)
class Prior:
    """What can be guessed about one family without looking.

    Args:
        family: question family.
        count: questions counted.
        chance: mean of 1 / options.
        answer, share: the most frequent answer and its share.
    """

    family: str
    count: int
    chance: float
    answer: str
    share: float

    @property
    def ratio(self) -> float:
        """Share of the most frequent answer over chance; the world keeps it below 1.3."""
        return self.share / self.chance


def priors(domain: Domain, split: Split = "test", scenes: int = 3000, questions: int = 8) -> list[Prior]:
    """The answer priors of a domain's closed families."""
    answers: dict[str, Counter[str]] = {}
    chances: dict[str, list[float]] = {}
    for index in range(scenes):
        scene = domain.scene(domain.rng(split, index))
        for question in domain.questions(scene, domain.rng(split, index, 1), questions):
            if question.options:
                answers.setdefault(question.family, Counter())[question.answer] += 1
                chances.setdefault(question.family, []).append(1 / len(question.options))
    rows = []
    for family in domain.families:
        if family in answers:
            answer, count = answers[family].most_common(1)[0]
            total = answers[family].total()
            rows.append(Prior(family, total, float(np.mean(chances[family])), answer, count / total))
    return rows
