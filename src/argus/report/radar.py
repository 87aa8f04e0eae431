"""Scores by capability around a circle: one axis per family of questions, one outline per model or variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from argus.report.theme import MARKERS, SERIES, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 3  # axes that span an area
LETTERS = 60  # of names that stand side by side in the legend


def radar(axes_of: Sequence[str], rows: Mapping[str, Sequence[float]], chance: Sequence[float] | None) -> Figure:
    """A radar plot of shares.

    Args:
        axes_of: the capabilities, from the top clockwise.
        rows: name -> share per capability; NaN where it was not measured, which leaves a gap.
        chance: share of blind guessing per capability; None draws none.
    """
    from matplotlib.figure import Figure

    angles = [2 * math.pi * i / len(axes_of) for i in range(len(axes_of))]
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_offset(math.pi / 2)  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    if chance is not None:
        axes.fill(angles, [100 * c for c in chance], color=colour("line"), zorder=0, label="chance")
    for number, (name, values) in enumerate(rows.items()):
        k = number % len(SERIES)
        closed = [100 * v for v in [*values, values[0]]]
        axes.plot(
            [*angles, angles[0]], closed, color=colour(SERIES[k]), linewidth=1.6, marker=MARKERS[k], markersize=5, label=name
        )
    axes.set_xticks(angles, [name.replace("_", " ") for name in axes_of])
    axes.set_ylim(0, 100)
    axes.set_yticks([25, 50, 75, 100], ["25", "50", "75", "100 %"])
    axes.tick_params(axis="x", labelcolor=colour("ink"))
    beside = LETTERS // max(len(name) + 6 for name in ("chance", *rows))  # 6: the marker before a name
    figure.legend(loc="outside upper left", ncols=min(3, max(1, beside)), handlelength=1.6, columnspacing=1.2)
    return figure
