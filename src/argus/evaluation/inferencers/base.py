"""What an inferencer is, and the two verbs it needs from a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from PIL.Image import Image

from argus.core import registry
from argus.core.sample import Sample
from argus.evaluation.options import Named, named

PICTURES = "option_pictures"  # metadata: the pictures that are (or belong to) the options, in their order
DRAWN = "UnsupportedError: its options are pictures, which only the inferencer `drawn` can ask"


@dataclass(slots=True)
class Question:
    """A sample as asked, with its decoded pictures. Questions with the same `group` and `shown` show the same pictures.

    `lead` is how the model's turn begins: words that it is taken to have said, and goes on from.
    """

    group: str
    sample: Sample
    images: list[Image]
    shown: int = 0
    lead: str = ""


@dataclass(slots=True)
class Answer:
    """What came back.

    Args:
        text: the raw answer.
        scores: score per option, for inferencers that score.
        tokens: tokens generated, end of turn not counted.
        notes: what else the inferencer writes into the record.
        skipped: why this model cannot be asked this; such an answer counts in no number.
    """

    text: str
    scores: list[float] = field(default_factory=list)
    tokens: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None


class AnsweringModel(Protocol):
    """A model as evaluation sees it. An endpoint without log-probabilities offers only `generate`."""

    def generate(self, questions: Sequence[Question], max_new_tokens: int) -> list[Answer]:
        """Greedy answers, in the order of the questions."""
        ...

    def score(self, questions: Sequence[Question], mean: bool, end: bool = True) -> list[list[float]]:
        """Log-probability of each option as the model's whole turn; divided by its tokens if `mean`.

        Args:
            end: whether the end of the turn belongs to the option.
        """
        ...

    def first_tokens(self, questions: Sequence[Question]) -> list[list[float]]:
        """Log-probability of each option's first token behind what all options share, whatever would follow it."""
        ...


class Inferencer(ABC):
    """Asks a model."""

    Options: ClassVar[type[registry.Options]]
    whole_groups: bool = False  # whether all questions of a group have to be asked together, in their order

    def __init__(self, options: registry.Options) -> None:
        self.options = options

    def refusal(self, sample: Sample) -> str | None:
        """Why this inferencer cannot ask this sample; None when it can."""
        return DRAWN if PICTURES in sample.metadata else None

    @abstractmethod
    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions."""


class Around(Inferencer):
    """Asks by way of another inferencer, `inner`, and by its rules of what can be asked and together with what.

    Args:
        inner: which one.
    """

    def __init__(self, options: registry.Options, inner: Named) -> None:
        super().__init__(options)
        self.inner: Inferencer = registry.build("inferencer", *named(inner))
        self.whole_groups = self.whole_groups or self.inner.whole_groups

    def refusal(self, sample: Sample) -> str | None:
        return self.inner.refusal(sample)
