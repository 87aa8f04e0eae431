"""What beside accuracy a model should be (ChEF, arXiv 2311.02692): calibrated, steady, able to follow and to learn in context.

    ECE  = sum_b n_b / n |mean confidence_b - accuracy_b|        over bins of equal count, confidences sorted
    RIAM = 50 + 50 (mean_n acc_n - acc_0) / (acc_0 - acc_random)     n examples in context; 50 is no gain
    RRM  = 100 (acc_corrupted - acc_random) / (acc - acc_random)     what of the skill a corruption leaves
    MR   = 100 * share of items whose chosen option stays when the options are renamed

RIAM with its affine map is the official code's; the paper's equation may leave it out. A chance-corrected denominator near zero
says nothing, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from argus.core.errors import ArgusError

LEAST = 0.02  # smallest skill above chance that others are measured against


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """ECE over bins of equal count; the first n mod bins get one item more.

    Args:
        confidence: (n,) probability of the chosen option.
        correct: (n,) of 0 and 1.
    """
    return float(calibration_gaps(confidence, correct, bins).mean())


def calibration_gaps(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> NDArray[np.float64]:
    """(n,) each item's part in the ECE: confidence - correct, signed as its bin's mean is; the mean over items is the ECE."""
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


def in_context_gain(without: float, with_examples: Sequence[float], chance: float) -> float:
    """RIAM; 50 where examples change nothing.

    Raises:
        ArgusError: the model is at chance without examples.
    """
    return 50 + 50 * (float(np.mean(with_examples)) - without) / _skill(without, chance)


def robustness(clean: float, corrupted: float, chance: float) -> float:
    """RRM: 100 where a corruption costs nothing, 0 where it leaves chance.

    Raises:
        ArgusError: the model is at chance on clean items.
    """
    return 100 * (corrupted - chance) / _skill(clean, chance)


def matching(plain: Sequence[int], renamed: Sequence[int]) -> float:
    """MR: percentage of items whose chosen index stays. One that always says the first has 100 too; show accuracy beside it."""
    return 100 * float(np.mean(np.asarray(plain) == np.asarray(renamed)))


def _skill(accuracy: float, chance: float) -> float:
    if abs(accuracy - chance) < LEAST:
        raise ArgusError(f"an accuracy of {accuracy:.1%} is at chance ({chance:.1%}), so nothing can be measured against it")
    return accuracy - chance
