"""What a metric is: a score per answer (`AnswerMetric`) or a reading of what a question cost (`CostMetric`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from argus.core import registry
from argus.core.sample import Sample
from argus.evaluation import statistics
from argus.evaluation.cost import Cost
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.statistics import Measurement


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth, and what was read out of it.

    Args:
        value: the score; None where the answer could not be scored, which counts in no mean.
        extracted: what was read.
        ratios: the answer's part in numbers that are no means over answers: name -> (numerator, denominator), summed over all.
        labels: what was said and what is true, where both are labels: gives `agreement`, `per class` and Cohen's `kappa`.
        notes: what else the record of the answer keeps.
    """

    value: float | None
    extracted: str
    ratios: dict[str, tuple[float, float]] = field(default_factory=dict)
    labels: tuple[str, str] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class AnswerMetric(ABC):
    """Scores each answer; the measurement is the mean, its interval clustered by picture."""

    Options: ClassVar[type[registry.Options]]
    unit: str = "share"
    better: Literal["higher", "lower"] = "higher"

    def __init__(self, options: registry.Options) -> None:
        self.options = options

    def applies(self, sample: Sample) -> bool:
        """Whether a sample can be scored by this metric."""
        return sample.target is not None

    @abstractmethod
    def score(self, sample: Sample, answer: Answer) -> Score:
        """The score of one answer."""

    def scores(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> list[Score]:
        """The scores of several answers."""
        return [self.score(sample, answer) for sample, answer in zip(samples, answers, strict=True)]

    def ratio_unit(self, name: str) -> str:
        """The unit of one of the ratios."""
        return "share"

    def measure(self, values: Sequence[float], clusters: Sequence[str]) -> Measurement:
        """One number for many scores."""
        return statistics.mean(values, clusters, self.unit)

    def over_families(self, values: Sequence[float], families: Sequence[str], clusters: Sequence[str]) -> Measurement:
        """The mean over families of each one's number."""
        return statistics.mean_of_means(values, families, clusters, self.unit)


class CorpusMetric(AnswerMetric):
    """Scores answers when all of them are in; until then `score` leaves notes and no value."""

    @abstractmethod
    def over_corpus(self, notes: Sequence[Mapping[str, Any]]) -> list[float]:
        """The score of each answer, from the notes on all of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a metric noted on an answer, and what the answer counts in: its groups, and the cluster of its pictures."""

    notes: Mapping[str, Any]
    groups: Sequence[str]
    cluster: str


class WholeMetric(AnswerMetric):
    """Measures all answers at once, where a number is no mean over answers; `score` leaves notes and no value."""

    @abstractmethod
    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        """Group -> number, `all` among them; the rows' order means nothing."""


class NoOptions(registry.Options):
    """Nothing to choose."""


class CostMetric(ABC):
    """Reads one number, and its parts, from each measured question; the measurement is the median or the mean."""

    Options = NoOptions
    unit: ClassVar[str]
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    middle: ClassVar[Literal["mean", "median"]] = "mean"

    def __init__(self, options: registry.Options) -> None:
        self.options = options

    @abstractmethod
    def read(self, cost: Cost) -> dict[str, float]:
        """`all` and, where there are any, parts by name."""

    def measure(self, values: Sequence[float], clusters: Sequence[str]) -> Measurement:
        """One number for many questions."""
        if self.middle == "median":
            return statistics.median(values, self.unit)
        return statistics.mean(values, clusters, self.unit)
