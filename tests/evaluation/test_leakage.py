"""Multimodal gain and leakage on the published scores, and the filter's exact bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from argus.evaluation.leakage import (
    abnormal_hit_rate,
    average,
    hits,
    leaked,
    multimodal_gain,
    multimodal_leakage,
    needs_picture,
)

# LLaVA-1.5-7B in the paper: score with pictures, without, and of its language model; the last row is MMStar itself.
LLAVA = [
    (34.4, 29.9, 29.9),
    (65.0, 19.5, 10.3),
    (68.7, 64.1, 58.9),
    (55.6, 48.7, 42.5),
    (65.6, 37.5, 32.6),
    (23.6, 20.3, 22.0),
]


@pytest.mark.parametrize(("scores", "gain", "leak"), [((52.1, 22.7, 20.3), 29.4, 2.4), ((30, 20, 25), 10, 0)])
def test_gain_and_leakage(scores: tuple[float, float, float], gain: float, leak: float) -> None:
    seen, blind, base = scores
    assert multimodal_gain(seen, blind) == pytest.approx(gain)
    assert multimodal_leakage(blind, base) == pytest.approx(leak)


def test_a_negative_gain_is_kept() -> None:
    assert multimodal_gain(20, 24) == -4


def test_published_rows_of_llava() -> None:
    gains = [round(multimodal_gain(seen, blind), 1) for seen, blind, _ in LLAVA]
    leaks = [round(multimodal_leakage(blind, base), 1) for _, blind, base in LLAVA]
    assert gains == [4.5, 45.5, 4.6, 6.9, 28.1, 3.3]
    assert leaks == [0, 9.2, 5.2, 6.2, 4.9, 0]
    # With MMStar's (10.7, 0) the means over seven benchmarks are 14.8 and 3.64.
    gain, leak = average([*LLAVA, (30.3, 19.6, 19.6)])
    assert gain == pytest.approx(14.8, abs=0.005)
    assert leak == pytest.approx(3.64, abs=0.005)


@given(arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=st.integers(0, 1)), st.integers(0, 9))
def test_the_kept_items_are_hard_without_pictures(right: np.ndarray, most: int) -> None:
    inspectors = len(right)
    kept = needs_picture(hits(right), most)
    assert kept.sum() <= needs_picture(hits(right), most + 1).sum()  # monotone
    if kept.any():
        assert right[:, kept].mean() <= most / inspectors + 1e-12


def test_abnormal_hit_rate_counts_items() -> None:
    assert abnormal_hit_rate([8, 6, 5, 0]) == 0.5


def test_an_item_leaks_when_more_than_half_of_the_pairs_hit_it() -> None:
    base = [[0, 1, 0], [0, 0, 0]]
    blind = [[1, 1, 1], [1, 1, 0]]
    # Item 0: both pairs. Item 1: the second pair only, as the first knew it before. Item 2: the first only, and half is not more.
    assert leaked(base, blind).tolist() == [True, False, False]
