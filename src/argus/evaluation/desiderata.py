"""Calibration as ChEF (arXiv 2311.02692) measures it, and the least skill that its other desiderata are measured against.

    ECE = sum_b n_b / n |mean confidence_b - accuracy_b|        over bins of equal count, confidences sorted

What corruptions leave, what examples add and whether renamed options are followed: `argus.evaluation.metrics.desiderata`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST = 0.02  # smallest skill above chance that others are measured against


def calibration_gaps(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> NDArray[np.float64]:
    """(n,) each item's part in the ECE: confidence - correct, signed as its bin's mean is; the mean over items is the ECE.

    Bins are of equal count; the first n mod bins get one item more.

    Args:
        confidence: (n,) probability of the chosen option.
        correct: (n,) of 0 and 1.
    """
    p, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    gaps = p - right
    for members in np.array_split(np.argsort(p, kind="stable"), bins):
        if len(members):
            gaps[members] *= np.sign(gaps[members].mean())
    return gaps


def temperature(scores: Sequence[ArrayLike], targets: Sequence[int]) -> float:
    """The temperature T that makes softmax(scores / T) likeliest on the targets, by golden-section search over log T.

    Args:
        scores: per item the log-probabilities of its options.
        targets: per item the index of the right one.
    """

    def loss(log_t: float) -> float:
        rows = [np.asarray(s, dtype=float) / np.exp(log_t) for s in scores]
        return float(sum(np.logaddexp.reduce(r) - r[t] for r, t in zip(rows, targets, strict=True)))

    low, high, golden = -3.0, 5.0, (5**0.5 - 1) / 2
    while high - low > 1e-4:
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return float(np.exp((low + high) / 2))


def confidences(scores: Sequence[ArrayLike], t: float = 1.0) -> NDArray[np.float64]:
    """Probability of each item's likeliest option at temperature t."""
    rows = [np.asarray(s, dtype=float) / t for s in scores]
    return np.array([np.exp(r.max() - np.logaddexp.reduce(r)) for r in rows])
