"""The plots of a report: accuracy against each measured cost, and each family of questions with its chance line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from argus.evaluation.statistics import Measurement
from argus.report.numbers import scale
from argus.report.summary import ALL, Evaluated, Variant
from argus.report.theme import MARKERS, SERIES, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "prefill_flops": "prefill FLOPs",
    "flops": "FLOPs",
    "ttft_ms": "time to first token",
    "kv_bytes": "KV cache",
    "tokens_per_second": "decoding speed",
    "peak_memory": "peak memory",
}


def label(metric: str) -> str:
    """A metric's name as axes and columns show it."""
    return LABELS.get(metric, metric.replace("_", " "))


def series(variants: Sequence[Variant]) -> dict[str, int]:
    """Technique -> number of its colour and marker; the model as it is has 0."""
    names = dict.fromkeys(v.technique for v in variants if v.technique)
    return {"": 0, **{name: 1 + i % (len(SERIES) - 1) for i, name in enumerate(names)}}


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points that no other beats by costing less at no lower score, or by scoring more at no higher cost.

    Args:
        points: name -> (cost, score).

    Returns:
        Names by rising cost.
    """
    front: list[str] = []
    best = -math.inf
    for name, (_, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > best:
            front.append(name)
            best = score
    return front


def cost_plot(evaluated: Evaluated, variants: Sequence[Variant], score: str, cost: str) -> Figure:
    """`score` against `cost`: one line per technique, 95 % intervals, and the Pareto front behind them."""
    from matplotlib.figure import Figure

    of = {v.name: v for v in variants}
    rows = [r for r in evaluated.results if score in r.metrics and cost in r.metrics]
    scores, costs = ({r.variant: r.metrics[m] for r in rows} for m in (score, cost))
    y, x = (scale(next(iter(m.values())).unit, (v.value for v in m.values())) for m in (scores, costs))
    points = {
        name: (costs[name].value / x.divisor, scores[name].value / y.divisor)
        for name in costs
        if not (math.isnan(costs[name].value) or math.isnan(scores[name].value))
    }
    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    axes = figure.add_subplot()
    front = pareto(points)
    if len(front) > 1:
        axes.plot(
            *zip(*(points[n] for n in front), strict=True),
            color=colour("line"),
            linewidth=7,
            solid_capstyle="round",
            zorder=1,
        )
    numbers = series(variants)
    for technique, number in numbers.items():
        names = sorted((n for n in points if of[n].technique == technique), key=lambda n: points[n][0])
        if not names:
            continue
        ink = colour(SERIES[number])
        xs, ys = zip(*(points[n] for n in names), strict=True)
        for name in names:
            low, high = scores[name].low / y.divisor, scores[name].high / y.divisor
            if not math.isnan(low):
                axes.plot([points[name][0]] * 2, [low, high], color=ink, linewidth=1, alpha=0.45, zorder=2)
        axes.plot(
            xs, ys, color=ink, linewidth=1.5, marker=MARKERS[number], markersize=7, markeredgecolor=colour("paper"),
            markeredgewidth=0.8, label=technique or names[0], zorder=3,
        )  # fmt: skip
    if score == "accuracy" and ALL in evaluated.chance:
        chance = evaluated.chance[ALL] / y.divisor
        axes.axhline(chance, color=colour("muted"), linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate("chance", (0.995, chance), (0, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", color=colour("muted"), fontsize=9)  # fmt: skip
    axes.set_xlabel(_axis(cost, x.unit))
    axes.set_ylabel(_axis(score, y.unit))
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=4, handlelength=1.6, columnspacing=1.2)
    return figure


def _axis(metric: str, unit: str) -> str:
    """`KV cache (kB)`, but not `visual tokens (tokens)`."""
    return label(metric) if label(metric).endswith(unit) else f"{label(metric)} ({unit})"


def family_plot(family: str, rows: Sequence[tuple[str, int, Measurement]], chance: float | None) -> Figure:
    """One family of questions: a bar per variant with its interval, and chance as a dashed line.

    Args:
        family: its name, the title.
        rows: (variant, number of its series, measurement), top to bottom.
        chance: score of blind guessing; None draws no line.
    """
    from matplotlib.figure import Figure

    unit = scale(rows[0][2].unit, (m.value for _, _, m in rows))
    figure = Figure(figsize=(4.6, 0.62 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for i, (_, number, m) in enumerate(rows):
        value = 0.0 if math.isnan(m.value) else m.value / unit.divisor
        axes.barh(i, value, height=0.66, color=colour(SERIES[number]), alpha=0.85, zorder=2)
        if not math.isnan(m.low):
            axes.plot([m.low / unit.divisor, m.high / unit.divisor], [i, i], color=colour("ink"), linewidth=1.2, zorder=3)
    if chance is not None:
        axes.axvline(chance / unit.divisor, color=colour("ink"), linewidth=1, linestyle=(0, (4, 3)), zorder=4)
    right = 100 if unit.unit == "%" else max(m.value for _, _, m in rows) / unit.divisor * 1.05
    axes.set_xlim(0, right)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.tick_params(axis="y", length=0, labelcolor=colour("ink"))
    for i, (_, _, m) in enumerate(rows):
        axes.annotate(unit.number(m.value), (1.015, i), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.grid(axis="x")
    axes.set_title(f"{family.replace('_', ' ')} ({rows[0][2].n:,} questions)", pad=6)
    return figure
