import math

import pytest

from argus.evaluation.statistics import Measurement
from argus.report.numbers import scale


@pytest.mark.parametrize(
    ("unit", "values", "value", "text"),
    [
        ("share", [0.5], 0.8125, "81.2 %"),
        ("FLOP", [2.5e9, 4e8], 4e8, "0.40 GFLOP"),  # one scale per column: the largest chooses it
        ("FLOP", [312.0], 312.0, "312 FLOP"),
        ("bytes", [1536.0], 1536.0, "1.54 kB"),
        ("ms", [11.24, 4.7], 4.7, "4.7 ms"),
        ("tokens", [144.0], 36.0, "36 tokens"),
        ("tokens/s", [0.0], 0.0, "0 tokens/s"),
        ("ms", [math.nan], math.nan, "-"),
    ],
)
def test_numbers_are_written_with_one_scale_per_quantity(unit: str, values: list[float], value: float, text: str) -> None:
    assert scale(unit, values).value(value) == text


def test_an_interval_of_no_width_is_not_written() -> None:
    column = scale("ms", [10.0])
    assert column.interval(Measurement(10.0, 9.5, 10.5, 16, "ms")) == "9.5 to 10.5"
    assert column.interval(Measurement(10.0, 10.0, 10.0, 16, "ms")) == ""
    assert column.interval(Measurement(10.0, math.nan, math.nan, 1, "ms")) == ""
