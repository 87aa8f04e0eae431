"""Share of answers that equal the target, after a named normalisation of both. An answer that says nothing is wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, Score
from argus.evaluation.metrics.iou import read_box
from argus.evaluation.metrics.normalise import NORMALISATIONS


class AccuracyOptions(Options):
    """Options of the metric."""

    normalisation: Literal["exact", "text-1", "number-1"] = Field("text-1", description="form in which answers are compared")


class Accuracy(AnswerMetric):
    """Exact match."""

    Options = AccuracyOptions
    options: AccuracyOptions

    def applies(self, sample: Sample) -> bool:
        """Answers in words: not boxes, not captions."""
        if sample.options:
            return sample.target is not None
        return sample.target is not None and read_box(sample.target) is None and not sample.metadata.get("facts")

    def score(self, sample: Sample, answer: Answer) -> Score:
        normal = NORMALISATIONS[self.options.normalisation]
        extracted = normal(answer.text)
        return Score(float(bool(extracted) and extracted == normal(sample.target or "")), extracted)
