"""Intervals, differences and chance, against values worked out by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from argus.core.sample import Sample
from argus.evaluation.statistics import chance_level, mean, mean_of_means, median, paired, standard_error, student


def test_clustered_standard_error():
    # m = 0.5, var = 0.3; residual sums per cluster 1, -1, 0; sum of squares 1.5: between = 2 - 1.5 = 0.5
    # SE^2 = 0.3 / 6 + 0.5 / 36 = 0.0638889
    assert standard_error([1, 1, 0, 0, 1, 0], list("aabbcc")) == pytest.approx(math.sqrt(0.3 / 6 + 0.5 / 36), abs=1e-12)
    assert standard_error([1, 1, 0, 0, 1, 0], list("abcdef")) == pytest.approx(math.sqrt(0.3 / 6))


def test_clustered_standard_error_equals_the_double_sum():
    rng = np.random.default_rng(0)
    s, clusters = rng.random(40), rng.integers(0, 9, 40)
    r, n = s - s.mean(), len(s)
    pairs = sum(r[i] * r[j] for i in range(n) for j in range(n) if i != j and clusters[i] == clusters[j])
    assert standard_error(s, clusters) == pytest.approx(math.sqrt(s.var(ddof=1) / n + pairs / n**2))


@pytest.mark.parametrize("df", [3, 5, 9, 30, 300])
def test_student_quantile(df):
    assert student(df) == pytest.approx(stats.t.ppf(0.975, df), rel=5e-3)


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_share_interval_covers_the_truth_about_95_times_in_100(rate):
    """60 pictures with 8 questions; each picture has its own difficulty, so questions of a picture hang together."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(60), 8)
    hits = naive_hits = 0
    for _ in range(500):
        difficulty = rng.beta(4 * rate, 4 * (1 - rate), 60)
        scores = (rng.random(480) < np.repeat(difficulty, 8)).astype(float)
        m = mean(scores, clusters)
        hits += m.low <= rate <= m.high
        alone = mean(scores, np.arange(480))
        naive_hits += alone.low <= rate <= alone.high
    assert 0.93 <= hits / 500 <= 0.97
    assert naive_hits / 500 < 0.85  # why the clusters matter


def test_all_right_is_not_certain():
    m = mean([1.0] * 100, [i // 5 for i in range(100)])
    assert m.value == m.high == 1.0
    assert 0.8 < m.low < 0.9  # Wilson with 20 pictures: 1 / (1 + t^2 / 20), t(19) = 2.093 -> 0.820
    assert m.low == pytest.approx(1 / (1 + 2.093**2 / 20), abs=1e-3)


def test_mean_of_measured_values():
    values = [10.0, 12.0, 14.0, 16.0]  # mean 13, SE sqrt(20 / 3 / 4) = 1.291, t(3) = 3.182
    m = mean(values, list("abcd"), "FLOP")
    assert (m.value, m.n, m.unit) == (13.0, 4, "FLOP")
    assert m.high - m.value == pytest.approx(3.182 * 1.291, rel=5e-3)


def test_nothing_measured_is_nan():
    assert math.isnan(mean([], []).value)
    assert math.isnan(median([], "ms").value)
    assert mean([1.0], ["a"]).low == 0.0


def test_median_interval_are_order_statistics():
    # n = 16: ranks 8 -+ 3.92 -> sorted values number 4 (floor 4.08) and 11 (ceil 11.92 - 1), counted from 0
    m = median(list(range(16)), "ms")
    assert (m.value, m.low, m.high) == (7.5, 4, 11)


def test_paired_difference():
    a, b, clusters = [1, 1, 1, 0, 1, 1], [0, 1, 0, 0, 1, 0], list("abcdef")
    d = paired(a, b, clusters)
    assert (d.value, d.wins, d.losses, d.n) == (0.5, 3, 0, 6)
    # Three clusters differ, all in favour of a: 2 of 8 sign patterns are as extreme.
    assert d.p == pytest.approx(0.25, abs=0.02)
    assert paired(a, a, clusters).p == 1.0


def test_paired_p_is_uniform_without_a_difference():
    rng = np.random.default_rng(2)
    small = 0
    for _ in range(200):
        shared = rng.normal(size=30)
        a, b = shared + rng.normal(size=30), shared + rng.normal(size=30)
        small += paired(a, b, np.arange(30), flips=999).p < 0.1
    assert 0.05 <= small / 200 <= 0.15


def test_chance():
    four, two, free = (Sample("", [], "a", options) for options in (list("abcd"), list("ab"), []))
    assert chance_level([four, two, free]) == pytest.approx((0.25 + 0.5 + 0) / 3)


def test_the_mean_of_means_counts_every_group_the_same() -> None:
    """Groups 1, 0, 0, 0 and 1, 1: (1/4 + 1) / 2. The error is that of two independent means, each with n - 1 made n."""
    scores, groups = [1, 0, 0, 0, 1, 1], list("aaaabb")
    found = mean_of_means(scores, groups, list("uvwxyz"))
    assert found.value == pytest.approx(0.625)
    error = math.sqrt(6 / 5 * (0.25 * 0.75 / 4) / 4)  # of the first group; the second has no spread
    assert found.high - found.value == pytest.approx(student(5) * error)
    assert found.n == 6


def test_the_mean_of_means_of_equal_groups_is_the_mean() -> None:
    rng = np.random.default_rng(0)
    scores, clusters = rng.integers(0, 2, 400), [str(i // 4) for i in range(400)]
    groups = [str(i % 2) for i in range(400)]
    found = mean_of_means(scores, groups, clusters)
    assert found.value == pytest.approx(scores.mean())
    assert (found.high - found.low) / 2 == pytest.approx(student(99) * standard_error(scores, clusters), rel=0.1)
