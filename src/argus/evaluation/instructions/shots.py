"""In-context learning: k answered examples as earlier turns in front of each question (ChEF's ICL, arXiv 2311.02692).

    User: <picture> Which side? Assistant: left    User: <picture> Which side? Assistant: right    User: <picture> Which side?

Examples come with the question, where its scenario knows them (`demonstrations` in its metadata, as those of the world's
episodes), or from the first `size` questions of another scenario, for instance the same one's train split. All questions about a
picture get the same ones in the same order, so that they still share what was computed for them; only by `text_similarity` each
gets its own. The most similar example comes last, next to the question. One about the question's own picture is never shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from random import Random
from typing import Literal

import numpy as np
from pydantic import Field

from argus.core.errors import DataError
from argus.core.images import load_image
from argus.core.registry import Options, build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.options import Named, named
from argus.evaluation.scenarios.base import scenario_of

SIDE = 8  # pixels of the thumbnails that are compared


class ShotsOptions(Options):
    """How many examples, and which."""

    k: int = Field(4, ge=0, le=64, description="examples in front of each question")
    choice: Literal["random", "fixed", "image_similarity", "text_similarity"] = Field(
        "random", description="by lot for each picture; the first ones; or the most alike by thumbnails or by words"
    )
    pictures: bool = Field(True, description="show the examples' pictures; without, their text alone")
    pool: Named | None = Field(None, description="scenario that examples are taken from, where questions bring none along")
    size: int = Field(200, ge=1, description="questions of the pool to choose from")
    instruction: Named = Field("plain", description="how examples are asked")
    seed: int = Field(0, ge=0, description="of the lot")


class Shots(Instruction):
    """Puts answered examples in front of the question."""

    Options = ShotsOptions
    options: ShotsOptions

    def __init__(self, options: ShotsOptions) -> None:
        super().__init__(options)
        self.asked = build("instruction", *named(options.instruction))
        self.scenario = scenario_of(options.pool) if options.pool is not None else None

    @cached_property
    def pool(self) -> list[Sample]:
        """The pool's questions that have an answer."""
        groups = self.scenario.groups(self.options.size, 0) if self.scenario is not None else ()
        return [sample for sample in islice((s for g in groups for s in g.samples), self.options.size) if answer(sample)]

    def apply(self, sample: Sample) -> Sample:
        if not self.options.k:
            return sample
        picture = sample.metadata.get("picture")
        known = sample.metadata.get("demonstrations") or self.pool
        known = [s for s in known if picture is None or s.metadata.get("picture") != picture]
        if len(known) < self.options.k:
            raise DataError(
                f"{self.options.k} examples are wanted, and there are {len(known)}.",
                where=sample.id,
                hint="Name a scenario under 'pool', or ask for fewer.",
            )
        earlier = [turn for example in self.chosen(known, sample) for turn in self.turns(example)]
        system = [m for m in sample.messages if m.role == "system"]
        return replace(sample, messages=[*system, *earlier, *(m for m in sample.messages if m.role != "system")])

    def chosen(self, known: Sequence[Sample], sample: Sample) -> list[Sample]:
        """The k examples for a question, in the order in which they are shown."""
        k, choice = self.options.k, self.options.choice
        if choice == "random":
            return Random(f"{self.options.seed}/{sample.metadata.get('picture', sample.id)}").sample(list(known), k)
        if choice == "fixed":
            return list(known[:k])
        alike: Callable[[Sample, Sample], float] = same_words if choice == "text_similarity" else same_look
        return sorted(known, key=lambda example: alike(example, sample))[-k:]

    def turns(self, example: Sample) -> list[Message]:
        """An example as turns and its answer."""
        asked = self.asked.apply(example)
        hidden = () if self.options.pictures else (ImagePart,)
        turns = [Message(m.role, [part for part in m.content if not isinstance(part, hidden)]) for m in asked.messages]
        if turns[-1].role != "assistant":
            turns.append(Message("assistant", [TextPart(answer(asked))]))
        return [turn for turn in turns if turn.role != "system"]


def answer(sample: Sample) -> str:
    """What is said last: the target, or the last turn where that is the answer."""
    return sample.messages[-1].text() if sample.messages[-1].role == "assistant" else sample.target or ""


def same_words(a: Sample, b: Sample) -> float:
    """Share of the words of two questions that both have."""
    first, second = (set(re.findall(r"\w+", _question(s).lower())) for s in (a, b))
    return len(first & second) / max(1, len(first | second))


def _question(sample: Sample) -> str:
    return next(m.text() for m in reversed(sample.messages) if m.role == "user")


def same_look(a: Sample, b: Sample) -> float:
    """How near two pictures are, by the colours of their thumbnails; -inf without a picture."""
    first, second = (_thumbnail(s) for s in (a, b))
    return float("-inf") if first is None or second is None else -float(np.abs(first - second).sum())


def _thumbnail(sample: Sample) -> np.ndarray | None:
    pictures = sample.images()
    return np.asarray(load_image(pictures[-1]).convert("RGB").resize((SIDE, SIDE)), dtype=float) if pictures else None
