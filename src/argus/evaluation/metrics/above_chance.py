"""Accuracy above chance: what is right beyond a blind guess.

    mean over questions of [answer is right] - 1 / options

0 is what guessing gives, whatever the number of options; a question without options has no chance and is not scored.
"""

from __future__ import annotations

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.accuracy import Accuracy
from argus.evaluation.metrics.base import Score


class AboveChance(Accuracy):
    """Accuracy minus the chance of each question."""

    def applies(self, sample: Sample) -> bool:
        return bool(sample.options) and super().applies(sample)

    def score(self, sample: Sample, answer: Answer) -> Score:
        score = super().score(sample, answer)
        return Score((score.value or 0.0) - 1 / len(sample.options), score.extracted)
