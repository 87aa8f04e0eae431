"""Calibration, in-context gain, robustness and matching on numbers worked out by hand."""

import numpy as np
import pytest

from argus.core.errors import ArgusError
from argus.evaluation.desiderata import calibration_error, confidences, in_context_gain, matching, robustness, temperature

P = [0.9, 0.8, 0.7, 0.6, 0.5, 0.95, 0.85, 0.3, 0.4, 0.55, 0.65, 0.75]
RIGHT = [1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0]


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


def test_in_context_gain() -> None:
    assert in_context_gain(0.5, [0.5, 0.5, 0.5], 0.25) == 50
    assert in_context_gain(0.5, [0.6, 0.6, 0.75], 0.25) == pytest.approx(80)  # 50 + 50 * 0.15 / 0.25


def test_robustness() -> None:
    assert robustness(0.8, 0.8, 0.25) == 100
    assert robustness(0.8, 0.25, 0.25) == pytest.approx(0)
    with pytest.raises(ArgusError, match="at chance"):
        robustness(0.25, 0.25, 0.25)


def test_matching() -> None:
    assert matching([0, 1, 2, 3], [0, 1, 2, 0]) == 75
    assert matching([0] * 5, [0] * 5) == 100  # always the first: steady, and no skill at all
