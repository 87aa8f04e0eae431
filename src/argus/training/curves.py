"""Loss curves: the training log as a PNG a person would look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SKIP = {"epoch", "step", "learning_rate", "grad_norm", "mfu", "samples_per_second", "total_flos"}


def quantities(log: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """What a log holds, by the axis it belongs on: `loss` or `share` -> name -> (step, value) pairs."""
    names: dict[str, list[tuple[int, float]]] = {}
    for entry in log:
        for name, value in entry.items():
            if name not in SKIP and not name.startswith("train_") and isinstance(value, int | float):
                names.setdefault(name, []).append((int(entry["step"]), float(value)))
    shares = {n: p for n, p in names.items() if all(0 <= v <= 1 for _, v in p) and n != "loss"}
    panels = {"loss": {n: p for n, p in names.items() if n not in shares}, "share": shares}
    return {label: panel for label, panel in panels.items() if panel}


def draw_curves(log: Sequence[Mapping[str, Any]], out: Path, title: str = "") -> Path:
    """Draw every logged quantity over steps, losses and shares in separate panels.

    Args:
        log: entries with `step` and numbers, as in a trainer's `log_history`.
        out: the PNG to write.
    """
    from matplotlib.figure import Figure

    panels = quantities(log)
    figure = Figure(figsize=(5.5 * max(1, len(panels)), 3.6), layout="constrained")
    for index, (label, panel) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        for name, points in panel.items():
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(out, dpi=120)
    return out
