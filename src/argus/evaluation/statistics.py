"""Numbers with their uncertainty: clustered intervals, paired differences, chance.

Questions about one picture are not independent, so every interval here is clustered by picture. With s the n scores,
m their mean, and c the clusters ("Adding Error Bars to Evals", arXiv 2411.00640, equation 4):

    SE^2 = var(s) / n + 1/n^2 * sum_c sum_{i != j in c} (s_i - m)(s_j - m)

The inner double sum is (sum of residuals)^2 - sum of squared residuals per cluster, so nothing loops over pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from argus.core.sample import Sample

Z95 = 1.959964  # 97.5 % point of the normal distribution


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured number.

    Args:
        value: the estimate; NaN when nothing was measured.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        n: number of items behind it.
        unit: what it counts: `share`, `ms`, `FLOP`, `bytes`, `tokens`, `tokens/s`, `MB`.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference `a - b` on the same items: estimate, 95 % interval, two-sided p, and who won how often."""

    value: float
    low: float
    high: float
    p: float
    n: int
    wins: int
    losses: int


def student(df: int) -> float:
    """97.5 % point of Student's t: tabled to 4, from there the expansion in 1 / df (Abramowitz & Stegun 26.7.5)."""
    if df <= 4:
        return (12.706, 4.303, 3.182, 2.776)[max(df, 1) - 1]
    z = Z95
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / df**k for k, term in enumerate(terms, start=1))


def cluster_numbers(clusters: Sequence[str] | np.ndarray) -> np.ndarray:
    """Cluster names as integers 0..C-1, (n,)."""
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


def standard_error(scores: ArrayLike, clusters: Sequence[str] | np.ndarray) -> float:
    """Clustered standard error of the mean; the plain one when every item is its own cluster.

    >>> round(standard_error([1, 1, 0, 0, 1, 0], list("aabbcc")), 6)
    0.252762
    """
    s = np.asarray(scores, dtype=float)
    n = len(s)
    if n < 2:
        return math.nan
    residual = s - s.mean()
    per_cluster = np.bincount(cluster_numbers(clusters), weights=residual)
    between = float((per_cluster**2).sum() - (residual**2).sum())
    return math.sqrt(max(0.0, s.var(ddof=1) / n + between / n**2))


def mean(scores: ArrayLike, clusters: Sequence[str] | np.ndarray, unit: str = "share") -> Measurement:
    """Clustered mean with a 95 % interval.

    Scores that are all 0 or 1 get Wilson's interval on the effective sample size n / design effect, which stays
    inside 0..1 and does not collapse when all answers are right; a design effect below 1 is not credited. Other
    scores get mean +- t SE. With C clusters the quantile is Student's with C - 1 degrees of freedom.
    """
    s = np.asarray(scores, dtype=float)
    n = len(s)
    if n == 0:
        return Measurement(math.nan, math.nan, math.nan, 0, unit)
    m = float(s.mean())
    count = int(cluster_numbers(clusters).max()) + 1
    if count < 2:
        return Measurement(m, 0.0 if unit == "share" else math.nan, 1.0 if unit == "share" else math.nan, n, unit)
    t, error, variance = student(count - 1), standard_error(s, clusters), float(s.var(ddof=1))
    if not np.isin(s, (0.0, 1.0)).all():
        return Measurement(m, m - t * error, m + t * error, n, unit)
    effective = n / max(1.0, error**2 / (variance / n)) if variance > 0 else float(count)
    centre = (m + t**2 / (2 * effective)) / (1 + t**2 / effective)
    half = t / (1 + t**2 / effective) * math.sqrt(m * (1 - m) / effective + t**2 / (4 * effective**2))
    return Measurement(m, max(0.0, centre - half), min(1.0, centre + half), n, unit)


def ratio(parts: ArrayLike, wholes: ArrayLike, clusters: Sequence[str] | np.ndarray, unit: str = "share") -> Measurement:
    """Sum of parts over sum of wholes (precision, F1, ...), with a clustered interval.

    To first order r = sum a / sum b errs as the mean of (a - r b) / mean(b) does, whose clustered standard error is taken.
    """
    a, b = np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)
    if not b.sum():
        return Measurement(math.nan, math.nan, math.nan, 0, unit)
    r = float(a.sum() / b.sum())
    count = int(cluster_numbers(clusters).max()) + 1
    if count < 2:
        return Measurement(r, math.nan, math.nan, len(b), unit)
    half = student(count - 1) * standard_error((a - r * b) / b.mean(), clusters)
    return Measurement(r, r - half, r + half, len(b), unit)


def mean_of_means(scores: ArrayLike, groups: Sequence[str], clusters: Sequence[str], unit: str = "share") -> Measurement:
    """Mean over groups of their means, each group counting the same, with a clustered interval.

    With n_g scores in each of G groups it errs as sum_i (s_i - m_g) / (G n_g) does, whose sum per cluster is taken.
    """
    s = np.asarray(scores, dtype=float)
    group, cluster = cluster_numbers(groups), cluster_numbers(clusters)
    size = np.bincount(group)  # (G,)
    means = np.bincount(group, weights=s) / size
    value, count = float(means.mean()), int(cluster.max()) + 1
    if count < 2:
        return Measurement(value, math.nan, math.nan, len(s), unit)
    residual = np.bincount(cluster, weights=(s - means[group]) / (len(size) * size[group]))
    half = student(count - 1) * math.sqrt(count / (count - 1) * float((residual**2).sum()))
    return Measurement(value, value - half, value + half, len(s), unit)


def resampled(
    parts: ArrayLike, wholes: ArrayLike, number: Callable[[np.ndarray], np.ndarray], unit: str, draws: int = 1000
) -> Measurement:
    """A number of several shares, with the interval of a bootstrap over clusters; the draws come from a fixed seed.

    Args:
        parts, wholes: (clusters, K) numerators and denominators of K shares.
        number: (draws, K) shares -> (draws,).
    """
    above, below = np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)
    value = float(number((above.sum(0) / below.sum(0))[None])[0])
    count = len(above)
    if count < 2:
        return Measurement(value, math.nan, math.nan, int(below.sum()), unit)
    weight = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=draws)  # (draws, clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = number((weight @ above) / (weight @ below))
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite := found[np.isfinite(found)]) else (math.nan, math.nan)
    return Measurement(value, float(low), float(high), int(below.sum()), unit)


def agreement(pairs: Iterable[tuple[str, str]]) -> tuple[float, float]:
    """Share of equal labels p_o and Cohen's kappa, which takes from it what two who label by lot share, each as often as it does:

        kappa = (p_o - p_e) / (1 - p_e)        p_e = sum over labels of p_first(l) * p_second(l)

    Kappa is NaN where both always give one and the same label.

    >>> agreement([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])
    (0.75, 0.5)
    """
    counted = Counter(pairs)
    total = counted.total()
    if not total:
        return math.nan, math.nan
    equal = sum(n for (a, b), n in counted.items() if a == b) / total
    first, second = Counter[str](), Counter[str]()
    for (a, b), n in counted.items():
        first[a] += n
        second[b] += n
    by_lot = sum(first[label] * second[label] for label in first) / total**2
    return equal, (equal - by_lot) / (1 - by_lot) if by_lot < 1 else math.nan


def median(values: ArrayLike, unit: str) -> Measurement:
    """Median with the distribution-free interval of order statistics: ranks n/2 -+ 1.96 sqrt(n)/2."""
    v = np.sort(np.asarray(values, dtype=float))
    n = len(v)
    if n == 0:
        return Measurement(math.nan, math.nan, math.nan, 0, unit)
    half = Z95 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half) - 1)
    return Measurement(float(np.median(v)), float(v[low]), float(v[high]), n, unit)


def paired(a: ArrayLike, b: ArrayLike, clusters: Sequence[str] | np.ndarray, flips: int = 10_000) -> Difference:
    """Mean of `a - b` over the same items in the same order, clustered.

    p is that of a sign-flip permutation test over the clusters' sums: under "no difference" each cluster's sum is as
    likely as its negative. The flips come from a fixed seed, so the same data gives the same p.
    """
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    n = len(d)
    if n == 0:
        return Difference(math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
    interval = _difference_interval(d, clusters)
    sums = np.bincount(cluster_numbers(clusters), weights=d)
    sums = sums[sums != 0]
    signs = np.random.default_rng(0).integers(0, 2, size=(flips, len(sums)), dtype=np.int8) * 2 - 1
    extreme = np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9
    p = (1 + int(extreme.sum())) / (1 + flips) if len(sums) else 1.0
    return Difference(float(d.mean()), *interval, p, n, int((d > 0).sum()), int((d < 0).sum()))


def _difference_interval(d: np.ndarray, clusters: Sequence[str] | np.ndarray) -> tuple[float, float]:
    count = int(cluster_numbers(clusters).max()) + 1
    if count < 2:
        return math.nan, math.nan
    half = student(count - 1) * standard_error(d, clusters)
    return float(d.mean()) - half, float(d.mean()) + half


def chance_level(samples: Sequence[Sample]) -> float:
    """Expected accuracy of a blind guess: the mean of 1 / options; free answers cannot be guessed and count 0."""
    if not samples:
        return math.nan
    return sum(1 / len(s.options) if s.options else 0.0 for s in samples) / len(samples)
