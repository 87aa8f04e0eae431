"""How often a search asked the model about parts of the picture before it answered; 0 without a search."""

from __future__ import annotations

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score


class Looks(AnswerMetric):
    """Prompts of yes or no per question, each one forward pass unless parts share a prefill."""

    Options = NoOptions
    unit, better = "prompts", "lower"

    def applies(self, sample: Sample) -> bool:
        return True

    def score(self, sample: Sample, answer: Answer) -> Score:
        looks = answer.notes.get("search", {}).get("looks", 0)
        return Score(float(looks), str(looks))
