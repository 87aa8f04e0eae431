"""Numbers as people read them: one scale per column or axis, units written out, intervals beside values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from argus.evaluation.statistics import Measurement

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
PREFIXED = {"FLOP": "FLOP", "bytes": "B"}  # units that take a prefix, and how they are written behind one


@dataclass(frozen=True, slots=True)
class Scale:
    """How the values of one quantity are written: divided by `divisor`, with `decimals`, followed by `unit`."""

    divisor: float
    unit: str
    decimals: int

    def number(self, value: float) -> str:
        """A value without its unit; `-` where nothing was measured."""
        return "-" if math.isnan(value) else f"{value / self.divisor:,.{self.decimals}f}"

    def value(self, value: float) -> str:
        """A value with its unit."""
        return f"{self.number(value)} {self.unit}".strip() if not math.isnan(value) else "-"

    def interval(self, measurement: Measurement) -> str:
        """`low to high`; empty where there is no interval."""
        if math.isnan(measurement.low) or measurement.low == measurement.high:
            return ""
        return f"{self.number(measurement.low)} to {self.number(measurement.high)}"


def scale(unit: str, values: Iterable[float]) -> Scale:
    """One scale for all `values` of a unit.

    >>> scale("FLOP", [2.5e9, 4e8]).value(2.5e9)
    '2.50 GFLOP'
    >>> scale("share", [0.5]).value(0.8125)
    '81.2 %'
    """
    largest = max((abs(v) for v in values if not math.isnan(v)), default=0.0)
    if unit == "share":
        return Scale(0.01, "%", 1)
    if unit in PREFIXED:
        divisor, prefix = next(((d, p) for d, p in PREFIXES if largest >= d), (1.0, ""))
        return Scale(divisor, prefix + PREFIXED[unit] if prefix else unit, _decimals(largest / divisor))
    return Scale(1.0, unit, _decimals(largest))


def _decimals(largest: float) -> int:
    """Decimals that leave three significant digits of the largest value."""
    if largest == 0 or largest >= 100:
        return 0
    return max(0, 2 - math.floor(math.log10(largest)))
