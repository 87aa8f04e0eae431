"""Claims are arithmetic and comparisons over measured names, and nothing else."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.core.claims import parse
from argus.core.errors import RecipeError

MEASURED = {"full.accuracy": 0.9, "fast.accuracy": 0.88, "random.accuracy": 0.6, "full.accuracy[count]": 0.7, "zero.x": 0.0}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("fast.accuracy >= 0.95 * full.accuracy", True),  # 0.88 >= 0.855
        ("full.accuracy - random.accuracy >= 2 * (full.accuracy - fast.accuracy)", True),  # 0.3 >= 0.04
        ("fast.accuracy >= 98% * full.accuracy", False),  # 0.88 >= 0.882
        ("random.accuracy < fast.accuracy <= full.accuracy", True),
        ("full.accuracy[count] == 0.7", True),
        ("not fast.accuracy > full.accuracy and abs(fast.accuracy - full.accuracy) < 0.03", True),
        ("mean(full.accuracy, random.accuracy) > 0.8 or max(1, 2) == 2", True),
        ("-full.accuracy < 0", True),
    ],
)
def test_truth(text: str, holds: bool) -> None:
    assert parse(text).evaluate(MEASURED).holds is holds


def test_the_result_shows_the_numbers() -> None:
    result = parse("fast.accuracy >= 0.95 * full.accuracy").evaluate(MEASURED)
    assert result.text == "0.88 >= 0.95 * 0.9"
    assert result.margin == pytest.approx(0.88 - 0.855)
    assert result.values == {"fast.accuracy": 0.88, "full.accuracy": 0.9}


def test_what_was_not_measured_has_no_truth_value() -> None:
    result = parse("fats.accuracy > 0.5").evaluate(MEASURED)
    assert result.holds is None
    assert "Did you mean 'fast.accuracy'" in (result.reason or "")


def test_division_by_zero_has_no_truth_value() -> None:
    result = parse("full.accuracy / zero.x > 1").evaluate(MEASURED)
    assert result.holds is None
    assert "division by zero" in (result.reason or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("full.accuracy", "only a number"),
        ("full.accuracy >", "ends too early"),
        ("(full.accuracy > 1", "a '\\)' is missing"),
        ("full.accuracy > 1 1", "not expected"),
        ("sqrt(full.accuracy) > 1", "no function 'sqrt'"),
        ("__import__('os') > 1", "cannot read|no function"),
        ("full.accuracy ; 1", "cannot read ';"),
    ],
)
def test_errors_say_where(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(text)


numbers = st.floats(0.25, 8).map(lambda x: round(x, 3))
expressions = st.recursive(
    numbers.map(lambda x: (str(x), x)),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda t: (
            f"({t[0][0]} {t[1]} {t[2][0]})",
            {"+": operator.add, "-": operator.sub, "*": operator.mul}[t[1]](t[0][1], t[2][1]),
        )
    ),
    max_leaves=8,
)


@given(expressions, numbers)
def test_arithmetic_is_pythons(expression: tuple[str, float], bound: float) -> None:
    text, value = expression
    assert parse(f"{text} < {bound}").evaluate({}).holds == (value < bound)


def test_precedence_without_parentheses() -> None:
    assert parse("1 + 2 * 3 - 4 / 2 == 5").evaluate({}).holds is True


def test_names_in_order_each_once() -> None:
    assert parse("a.x > b.y and a.x < c.z").names() == ["a.x", "b.y", "c.z"]
