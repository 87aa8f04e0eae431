"""Many small random choices from one vectorised draw: a scalar draw from numpy costs as much as drawing a hundred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Uniform integers, picks and shuffles; refills itself from the generator.

    Args:
        rng: where the numbers come from.
        ahead: how many are drawn at once.
    """

    def __init__(self, rng: np.random.Generator, ahead: int) -> None:
        self.rng, self.ahead = rng, ahead
        self.drawn: list[int] = []

    def __call__(self, sides: int) -> int:
        """An integer in [0, sides); the modulo bias is below sides / 2**62."""
        if not self.drawn:
            self.drawn = self.rng.integers(0, 1 << 62, self.ahead).tolist()
        return self.drawn.pop() % sides

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in random order (Fisher-Yates)."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = self(i + 1)
            out[i], out[j] = out[j], out[i]
        return out
