"""How good a judge is: its scores beside those that people, or an oracle, gave to the same answers (MMIE, arXiv 2410.10139).

    pearson    mean of z(x) z(y), z(v) = (v - mean v) / deviation of v          mse, mae    mean of (x - y)^2, of |x - y|
    spearman   the same over ranks, equal scores sharing theirs
    cosine     n x y / (|x| |y|), averaged: high for almost any two lists of scores that are not negative, so never alone

The judge is the model that is asked, its score the first number of what it says, and the target the true one. Each is a mean
over answers, so that it comes with an interval. Where one of the two never varies, nothing correlates: 0. `judge_quality` is
Pearson's; an answer without a number counts in `unreadable` alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from argus.core.sample import Sample
from argus.evaluation import statistics
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import NoOptions, Row, Score, WholeMetric
from argus.evaluation.statistics import Measurement

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
Scores = np.ndarray  # (n,) float


class JudgeQuality(WholeMetric):
    """Agreement of two lists of scores."""

    Options = NoOptions
    unit = "correlation"

    def applies(self, sample: Sample) -> bool:
        """Samples whose target is a number."""
        return sample.target is not None and bool(_NUMBER.fullmatch(sample.target.strip()))

    def score(self, sample: Sample, answer: Answer) -> Score:
        found = _NUMBER.search(answer.text)
        ratios = {"unreadable": (float(found is None), 1.0)}
        if found is None:
            return Score(None, "", ratios)
        return Score(None, found[0], ratios, notes={"given": float(found[0]), "true": float(sample.target or 0)})

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        given, true = (np.array([row.notes[name] for row in rows]) for name in ("given", "true"))
        clusters = [row.cluster for row in rows]
        units = {"mse": "points", "mae": "points"}
        found = {name: statistics.mean(of, clusters, units.get(name, self.unit)) for name, of in parts(given, true).items()}
        return {"all": found.pop("pearson"), **found}


def parts(given: Scores, true: Scores) -> dict[str, Scores]:
    """What each answer adds to each number: (n,), whose mean is the number."""
    length = float(np.linalg.norm(given) * np.linalg.norm(true))
    return {
        "pearson": standardised(given) * standardised(true),
        "spearman": standardised(ranks(given)) * standardised(ranks(true)),
        "cosine": len(given) * given * true / length if length else np.zeros_like(given),
        "mse": (given - true) ** 2,
        "mae": abs(given - true),
    }


def standardised(values: Scores) -> Scores:
    """Values with mean 0 and deviation 1; zeros where they do not vary."""
    centred = values - values.mean()
    deviation = float(values.std())
    return centred / deviation if deviation else np.zeros_like(centred)


def ranks(values: Scores) -> Scores:
    """Ranks from 0, the mean of theirs for equal values.

    >>> ranks(np.array([2.0, 1.0, 2.0])).tolist()
    [1.5, 0.0, 1.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]
