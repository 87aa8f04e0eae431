"""Bayesian optimisation of a few numbers: a Gaussian process says where an expensive function may be better still.

After `starts` random points, each step fits a Gaussian process (Matern 5/2 kernel, jitter 1e-6; the length scale of greatest
marginal likelihood) to the standardised values and asks the function where the expected improvement is greatest:

    EI(x) = (m(x) - best) Phi(z) + s(x) phi(z),   z = (m(x) - best) / s(x)

among random candidates, half of them near the best point so far. A seed makes it reproducible. See Jones, Schonlau and Welch,
Efficient Global Optimization of Expensive Black-Box Functions (1998), and Snoek et al., Practical Bayesian Optimization
(arXiv 1206.2944).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

JITTER = 1e-6
SCALES = (0.1, 0.2, 0.4, 0.8, 1.6)  # candidates for the length scale, in a unit cube
CANDIDATES = 1024
NEAR = 0.1  # deviation of candidates around the best point


@dataclass(frozen=True, slots=True)
class Maximum:
    """The best point, its value, and all (point, value) in the order in which they were asked."""

    point: tuple[float, ...]
    value: float
    asked: tuple[tuple[tuple[float, ...], float], ...]


def maximise(
    function: Callable[[tuple[float, ...]], float],
    bounds: Sequence[tuple[float, float]],
    *,
    starts: int = 5,
    steps: int = 20,
    seed: int = 0,
    first: Sequence[tuple[float, ...]] = (),
) -> Maximum:
    """Looks for the point in a box at which a function is greatest; among equal values the earliest wins.

    Args:
        function: point -> value.
        bounds: (low, high) of each coordinate.
        starts: random points at the beginning.
        steps: points chosen by expected improvement.
        seed: of all random choices.
        first: points that are asked before the random ones.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(bounds, dtype=torch.float64).unbind(1)
    given = torch.tensor(list(first), dtype=torch.float64).view(len(first), len(bounds))
    points = torch.cat([(given - low) / (high - low), _uniform(starts, len(bounds), generator)])  # (n, d) in the unit cube
    asked: list[tuple[tuple[float, ...], float]] = []
    for number in range(len(first) + starts + steps):
        if number == len(points):
            values = torch.tensor([value for _, value in asked], dtype=torch.float64)
            points = torch.cat([points, _promising(points, values, generator)[None]])
        point = tuple((low + points[number] * (high - low)).tolist())
        asked.append((point, float(function(point))))
    best = max(range(len(asked)), key=lambda i: asked[i][1])
    return Maximum(*asked[best], tuple(asked))


def _uniform(count: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, width, generator=generator, dtype=torch.float64)


def _promising(points: Tensor, values: Tensor, generator: torch.Generator) -> Tensor:
    """The candidate (d,) of greatest expected improvement."""
    values = (values - values.mean()) / values.std(correction=0).clamp(min=1e-12)
    width = points.shape[1]
    around = points[values.argmax()] + NEAR * torch.randn(CANDIDATES // 2, width, generator=generator, dtype=torch.float64)
    candidates = torch.cat([_uniform(CANDIDATES // 2, width, generator), around.clamp(0, 1)])  # (C, d)
    mean, deviation = posterior(points, values, candidates)
    gain = mean - values.max()
    z = gain / deviation
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return candidates[(gain * torch.special.ndtr(z) + deviation * density).argmax()]


def posterior(points: Tensor, values: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) at `at` (C, d) of the process fitted to `values` (n,) at `points` (n, d)."""
    fits = []
    for scale in SCALES:
        factor = torch.linalg.cholesky(_matern(points, points, scale) + JITTER * torch.eye(len(points), dtype=points.dtype))
        weights = torch.cholesky_solve(values[:, None], factor)[:, 0]  # (n,)
        likelihood = -(values @ weights) / 2 - factor.diagonal().log().sum()
        fits.append((float(likelihood), scale, factor, weights))
    _, scale, factor, weights = max(fits, key=lambda fit: fit[0])
    cross = _matern(at, points, scale)  # (C, n)
    explained = torch.linalg.solve_triangular(factor, cross.T, upper=False).square().sum(0)
    return cross @ weights, (1 - explained).clamp(min=1e-12).sqrt()


def _matern(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Matern 5/2 kernel of (n, d) and (m, d) points: (n, m)."""
    distance = math.sqrt(5) * torch.cdist(a, b) / scale
    return (1 + distance + distance.square() / 3) * torch.exp(-distance)
