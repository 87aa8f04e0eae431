"""Accuracy above chance is zero for guessing, whatever the number of options."""

from itertools import product

import pytest

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.above_chance import AboveChance
from argus.evaluation.metrics.accuracy import AccuracyOptions


@pytest.mark.parametrize("count", [2, 3, 6])
def test_guessing_is_worth_nothing(count: int) -> None:
    metric = AboveChance(AccuracyOptions())
    words = ["red", "green", "blue", "pink", "brown", "cyan"][:count]
    # Every answer against every target: one in `count` is right.
    scores = [metric.score(Sample("", [], target, words), Answer(said)).value for target, said in product(words, words)]
    assert sum(scores) == pytest.approx(0)
    assert max(scores) == pytest.approx(1 - 1 / count)


def test_free_questions_have_no_chance() -> None:
    assert not AboveChance(AccuracyOptions()).applies(Sample("", [], "red"))
