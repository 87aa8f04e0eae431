"""FasterVLM's two diagnostics as one figure: attention shift along the sequence, and how widely attention is spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from argus.report.theme import SERIES, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = Any


def attention_figure(last: Array, encoder: Array, spread: Mapping[str, Array]) -> Figure:
    """Left: attention per column, last text token in each decoder layer against the encoder. Right: cumulated shares.

    Args:
        last: (layers, N) mean attention of the last prompt token on each visual token; drawn relative to its mean.
        encoder: (N,) the encoder's.
        spread: `last` and `encoder` -> (N,) share of the mass in the greatest 1 ... N values.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = np.asarray(last)
    window = max(1, layers.shape[1] // 24)
    for index, row in enumerate(layers):
        shade = 0.25 + 0.75 * (index + 1) / len(layers)
        left.plot(
            _smooth(row, window), color=colour(SERIES[1]), alpha=shade, linewidth=1.2, label="last token" if index == 0 else None
        )
    left.plot(_smooth(np.asarray(encoder), window), color=colour(SERIES[2]), linewidth=2.0, linestyle="--", label="encoder")
    left.axhline(1.0, color=colour("muted"), linewidth=0.7)
    left.set_xlabel("visual token, in the order of the sequence")
    left.set_ylabel("attention, over its mean")
    left.set_title("Shift: one line per decoder layer, darker is deeper")
    for (name, curve), series, dash in zip(spread.items(), SERIES[1:], ("-", "--"), strict=False):
        share = np.arange(1, len(curve) + 1) / len(curve)
        right.plot(share, curve, color=colour(series), linestyle=dash, label=name)
    right.plot([0, 1], [0, 1], color=colour("muted"), linewidth=0.7)
    right.set_xlabel("share of the visual tokens, greatest first")
    right.set_ylabel("share of the attention")
    right.set_title("Dispersion")
    for axes in (left, right):
        axes.legend(loc="best")
        axes.grid(axis="y")
    return figure


def _smooth(values: Array, window: int) -> Array:
    """Relative to the mean, averaged over neighbours."""
    relative = values / values.mean()
    kernel = np.ones(window) / window
    return np.convolve(np.pad(relative, window, mode="edge"), kernel, mode="same")[window:-window]
