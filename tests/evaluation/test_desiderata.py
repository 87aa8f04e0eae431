"""Calibration on numbers worked out by hand."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from argus.evaluation.desiderata import calibration_gaps, confidences, temperature

P = [0.9, 0.8, 0.7, 0.6, 0.5, 0.95, 0.85, 0.3, 0.4, 0.55, 0.65, 0.75]
RIGHT = [1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0]


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    return float(calibration_gaps(confidence, correct, bins).mean())


def test_calibration_error() -> None:
    assert calibration_error(P, RIGHT, 10) == pytest.approx(0.2875)
    assert calibration_error(P, RIGHT, 5) == pytest.approx(0.2375)
    assert calibration_error(P[:7], RIGHT[:7], 10) == pytest.approx(0.357143, abs=1e-6)  # one item a bin, three bins empty


def test_fitting_a_temperature_shrinks_the_error_of_an_overconfident_model() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 4))
    targets = [int(rng.choice(4, p=np.exp(row) / np.exp(row).sum())) for row in logits]
    loud = list(3 * logits)  # the true distribution, three times too sure
    right = [int(np.argmax(row) == t) for row, t in zip(loud, targets, strict=True)]
    fitted = temperature(loud[:1000], targets[:1000])
    assert fitted == pytest.approx(3, rel=0.1)
    before = calibration_error(confidences(loud[1000:]), right[1000:])
    after = calibration_error(confidences(loud[1000:], fitted), right[1000:])
    assert after < 0.5 * before
