"""What an inferencer is, and the two verbs it needs from a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from PIL.Image import Image

from argus.core import registry
from argus.core.sample import Sample


@dataclass(slots=True)
class Question:
    """A sample as asked, with its decoded pictures. Questions with the same `group` show the same pictures."""

    group: str
    sample: Sample
    images: list[Image]


@dataclass(slots=True)
class Answer:
    """What came back.

    Args:
        text: the raw answer.
        scores: score per option, for inferencers that score.
        tokens: tokens generated, end of turn not counted.
    """

    text: str
    scores: list[float] = field(default_factory=list)
    tokens: int = 0


class AnsweringModel(Protocol):
    """A model as evaluation sees it. An endpoint without log-probabilities offers only `generate`."""

    def generate(self, questions: Sequence[Question], max_new_tokens: int) -> list[Answer]:
        """Greedy answers, in the order of the questions."""
        ...

    def score(self, questions: Sequence[Question], mean: bool) -> list[list[float]]:
        """Log-probability of each option as the model's whole turn, end included; divided by its tokens if `mean`."""
        ...


class Inferencer(ABC):
    """Asks a model."""

    Options: ClassVar[type[registry.Options]]

    def __init__(self, options: registry.Options) -> None:
        self.options = options

    def refusal(self, sample: Sample) -> str | None:
        """Why this inferencer cannot ask this sample; None when it can."""
        return None

    @abstractmethod
    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions."""
