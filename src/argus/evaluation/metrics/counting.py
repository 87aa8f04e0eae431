"""Counting (ChEF on FSC147, arXiv 2311.02692): how far a count is off.

    MAE = mean of min(g, |n - g|)        accuracy = share of n = g        n: the number said, g: the right one

An error is at most the right number, so nothing is worse than saying 0. The number is the first word that is digits or a number
word from "no" to "twenty", with nothing around it, and 0 where there is none: "12." says 0, as in the published code. The
measurement is the MAE, in things; the accuracy stands beside it as `counting[accuracy]`.
"""

from __future__ import annotations

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score
from argus.evaluation.metrics.normalise import NUMBERS

WORDS = {"no": 0, **{word: number for number, word in enumerate(NUMBERS)}}


def said_number(text: str) -> int:
    """The first number of a text; 0 where there is none.

    >>> said_number("around 7 birds"), said_number("twelve"), said_number("There are twelve.")
    (7, 12, 0)
    """
    return next((int(w) if w.isdecimal() else WORDS[w] for w in text.lower().split() if w.isdecimal() or w in WORDS), 0)


class Counting(AnswerMetric):
    """Mean absolute error of counts, each at most the right number."""

    Options = NoOptions
    unit = "things"
    better = "lower"

    def applies(self, sample: Sample) -> bool:
        return (sample.target or "").isdecimal()

    def score(self, sample: Sample, answer: Answer) -> Score:
        right, said = int(sample.target or 0), said_number(answer.text)
        return Score(float(min(right, abs(said - right))), str(said), {"accuracy": (float(said == right), 1.0)})
