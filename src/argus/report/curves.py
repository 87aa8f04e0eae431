"""Loss curves in the report's look: one figure for losses, one for shares such as token accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from argus.report.theme import SERIES, colour
from argus.training.curves import quantities

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(log: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """`loss` and `share` -> figure, for those that a training log holds.

    Args:
        log: entries with `step` and numbers, as in a trainer's `log_history`.
    """
    from matplotlib.figure import Figure

    figures = {}
    for axis, lines in quantities(log).items():
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
        axes = figure.add_subplot()
        for i, (name, points) in enumerate(lines.items()):
            ink = colour(SERIES[i % len(SERIES)])
            axes.plot(
                *zip(*points, strict=True),
                color=ink,
                linewidth=1.4,
                linestyle=("-", "--", ":", "-.")[i % 4],
                label=name,
            )
        axes.set_xlabel("step")
        axes.set_ylabel(axis)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=4, handlelength=1.8, columnspacing=1.2)
        figures[axis] = figure
    return figures
