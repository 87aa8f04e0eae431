"""Searching schedules: Accelerating MLLMs by Searching Optimal Vision Token Reduction (arXiv 2412.00556).

Tokens are ranked alike in all layers but the first, so the tokens that a layer needs are among those that the layer before needs,
and what is searched is only how many. A searcher gets a metric (schedule -> number, greater is better) and returns a schedule.

`greedy` (G-Search), the least computation without loss: from shallow to deep, the fewest tokens of a layer - with the same number
in all deeper layers - that keep the metric within `tolerance` of its value without reduction,

    k_l = min { k <= k_(l-1) : f(k_1, ..., k_(l-1), k, k, ..., k) >= f_full - eps }.

If fewer tokens never help, bisection finds it in log2 steps. As essential tokens are nested, k_l is a bound that every feasible
schedule must respect, so none is smaller anywhere. The paper minimises each layer by Bayesian optimisation; that is `method:
bayesian`, and bisection, which needs no seed, is the default.

`p_sigmoid`, the best quality for a budget: the two free numbers of `schedules.sigmoid` by Bayesian optimisation. The paper's
parametrisation is not published in detail; this one is Argus's. FastV's step of the same budget is asked first, so the
result is never worse than it on the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from argus.methods.reduction.bayesian import maximise
from argus.methods.reduction.schedules import Schedule, mean_share, sigmoid

Metric = Callable[[Schedule], float]
STEEPNESS = (2.0, 100.0)  # from nearly a straight line to a step within one layer of 32
BAYESIAN_STARTS, BAYESIAN_STEPS = 3, 8  # of one layer of G-Search


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Args:
        schedule: share of the visual tokens per layer.
        value: the metric with it.
        full: the metric without reduction.
        evaluations: how often the metric was measured.
    """

    schedule: Schedule
    value: float
    full: float
    evaluations: int

    def record(self) -> dict[str, Any]:
        """As plain values, for a JSON file."""
        return {
            "schedule": list(self.schedule),
            "mean_share": mean_share(self.schedule),
            "value": self.value,
            "full": self.full,
            "evaluations": self.evaluations,
        }


class _Measured:
    """A metric that measures each schedule once."""

    def __init__(self, metric: Metric) -> None:
        self.metric, self.known = metric, dict[Schedule, float]()

    def __call__(self, schedule: Schedule) -> float:
        if schedule not in self.known:
            self.known[schedule] = float(self.metric(schedule))
        return self.known[schedule]


def greedy(
    metric: Metric,
    depth: int,
    tokens: int,
    tolerance: float = 0.01,
    *,
    first: int = 2,
    every: int = 1,
    method: Literal["bisect", "bayesian"] = "bisect",
    seed: int = 0,
) -> Found:
    """G-Search: the smallest schedule whose metric is within `tolerance` of that without reduction.

    Args:
        metric: schedule -> number, greater is better.
        depth: layers of the language model.
        tokens: N, visual tokens of a picture; counts are searched, shares k / N returned.
        tolerance: how much of the metric may be lost.
        first: first layer, 0-based, that may see fewer tokens.
        every: search every g-th layer and hold its number in between.
        method: bisect, or Bayesian optimisation of each layer's number.
        seed: of the Bayesian optimisation.
    """
    measured = _Measured(metric)
    full = measured((1.0,) * depth)
    counts = [tokens] * depth

    def held(layer: int, count: int) -> Schedule:
        return tuple(k / tokens for k in [*counts[:layer], *[count] * (depth - layer)])

    for layer in range(first, depth, every):
        before = counts[layer - 1] if layer else tokens

        def enough(count: int, layer: int = layer) -> bool:
            return measured(held(layer, count)) >= full - tolerance

        fewest = _bisect(enough, before) if method == "bisect" else _bayesian(enough, before, seed + layer)
        counts[layer:] = [fewest] * (depth - layer)
    schedule = held(depth, 0)
    return Found(schedule, measured(schedule), full, len(measured.known))


def _bisect(enough: Callable[[int], bool], most: int) -> int:
    """The least count that is enough; `most` is known to be."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _bayesian(enough: Callable[[int], bool], most: int, seed: int) -> int:
    """A small count that is enough, by Bayesian optimisation: fewer are better, too few are worst."""
    if most == 0:
        return 0
    fewest = most

    def saved(point: tuple[float, ...]) -> float:
        nonlocal fewest
        count = math.floor(point[0] + 0.5)
        if not enough(count):
            return -1.0
        fewest = min(fewest, count)
        return 1 - count / most

    maximise(saved, [(0.0, float(most))], starts=BAYESIAN_STARTS, steps=BAYESIAN_STEPS, seed=seed)
    return fewest


def p_sigmoid(
    metric: Metric, depth: int, budget: float, *, first: int = 2, starts: int = 5, steps: int = 20, seed: int = 0
) -> Found:
    """P-Sigmoid: the best S-shaped schedule of a budget.

    Args:
        metric: schedule -> number, greater is better.
        depth: layers of the language model.
        budget: mean share of the layers from `first` on.
        first: first layer, 0-based, that may see fewer tokens.
        starts, steps: random points, and points chosen by expected improvement.
        seed: of the random points.
    """
    measured = _Measured(metric)
    full = measured((1.0,) * depth)

    def schedule(point: tuple[float, ...]) -> Schedule:
        return sigmoid(depth, budget, math.exp(point[0]), point[1], first)

    steepness = (math.log(STEEPNESS[0]), math.log(STEEPNESS[1]))
    flat = (steepness[0], budget)  # FastV's step
    best = (
        maximise(
            lambda point: measured(schedule(point)),
            [steepness, (budget, 1.0)],
            starts=starts,
            steps=steps,
            seed=seed,
            first=[flat],
        )
        if budget < 1
        else None
    )
    chosen = schedule(best.point if best else flat)
    return Found(chosen, measured(chosen), full, len(measured.known))
