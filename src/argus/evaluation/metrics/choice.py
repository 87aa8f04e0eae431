"""Which option was chosen: where the options are letters, the first character of the answer; else the whole answer.

    "b) the red one" -> B

This is how SEED-Bench (arXiv 2307.16125) reads written answers: blanks in front dropped, case ignored, nothing else looked at,
so a model that begins with "The" chose the letter T, which is wrong.
"""

from __future__ import annotations

from string import ascii_uppercase

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score
from argus.evaluation.metrics.normalise import text_1


class Choice(AnswerMetric):
    """Share of questions whose right option was chosen."""

    Options = NoOptions

    def applies(self, sample: Sample) -> bool:
        return bool(sample.options) and sample.target is not None

    def score(self, sample: Sample, answer: Answer) -> Score:
        if list(sample.options) == list(ascii_uppercase[: len(sample.options)]):
            extracted = answer.text.strip()[:1].upper()
            return Score(float(extracted == sample.target), extracted)
        extracted = text_1(answer.text)
        return Score(float(bool(extracted) and extracted == text_1(sample.target or "")), extracted)
