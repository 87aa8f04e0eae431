"""Which caption fits which picture: scores of matching pictures with captions that differ in a relation (UniBench, 2408.04810).

Winoground's item has two pictures and two captions; with s[i, c] the score of caption c for picture i

    text  right: s[0,0] > s[0,1] and s[1,1] > s[1,0]         image right: s[0,0] > s[1,0] and s[1,1] > s[0,1]

and the group is right when both are. Comparisons are strict: a model that gives every caption the same score has nothing right,
also among several captions of one picture, where the published code counts such a tie as right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Winoground:
    """Shares of items; each array is (items,) of booleans."""

    text: NDArray[np.bool_]
    image: NDArray[np.bool_]

    @property
    def group(self) -> NDArray[np.bool_]:
        """Both right."""
        return self.text & self.image


def winoground(scores: ArrayLike) -> Winoground:
    """Text, image and group scores of s (items, 2 pictures, 2 captions)."""
    s = np.asarray(scores, dtype=float)
    text = (s[:, 0, 0] > s[:, 0, 1]) & (s[:, 1, 1] > s[:, 1, 0])
    image = (s[:, 0, 0] > s[:, 1, 0]) & (s[:, 1, 1] > s[:, 0, 1])
    return Winoground(text, image)


def caption_choice(scores: ArrayLike) -> NDArray[np.bool_]:
    """Whether caption 0 alone has the highest score, from (items, captions)."""
    s = np.asarray(scores, dtype=float)
    return s[:, 0] > s[:, 1:].max(1)


def by_type(means: Mapping[str, float], types: Mapping[str, str]) -> dict[str, float]:
    """Mean over the benchmarks of a type of their means: every benchmark weighs the same."""
    found: dict[str, list[float]] = {}
    for name, value in means.items():
        found.setdefault(types[name], []).append(value)
    return {kind: sum(row) / len(row) for kind, row in found.items()}


def representative(table: ArrayLike, names: Sequence[str]) -> tuple[str, float]:
    """The benchmark whose scores over the models correlate best with those of the others, and that mean correlation.

    A group of one stands for itself with 1. A low value says that the group has no good proxy: show it beside the name.

    Args:
        table: (models, benchmarks).
        names: of the benchmarks.
    """
    if len(names) == 1:
        return names[0], 1.0
    correlation = np.corrcoef(np.asarray(table, dtype=float), rowvar=False)
    mean = (correlation.sum(1) - 1) / (len(names) - 1)
    best = int(np.argmax(mean))
    return names[best], float(mean[best])
