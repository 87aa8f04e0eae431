"""The engine end to end on a tiny model: numbers, resumption, bad items."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus.evaluation import engine
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.scenarios.base import Group

from .conftest import QUESTIONS, naive_score, question


class Listed:
    """A scenario of given groups."""

    def __init__(self, groups):
        self.all = groups

    def groups(self, samples, seed):
        for group in self.all:
            yield replace(group, samples=list(group.samples))


@pytest.fixture
def groups():
    """Five pictures, three questions each."""
    return [
        Group(f"p{g}", [question(g, n, text, options).sample for n, (text, options) in enumerate(QUESTIONS)])
        for g in range(5)
    ]


@pytest.fixture
def ask(model, processor, groups, monkeypatch):
    def run(records=None, **options):
        monkeypatch.setattr(engine, "build_scenario", lambda _: Listed(groups))
        given = EvaluationOptions(scenario="world/objects", **{"batch_size": 2, **options})
        return evaluate(model, processor, given, run_part=records, progress=False)

    return run


def test_accuracy_equals_the_naive_argmax(ask, model, processor, groups):
    result = ask()
    right = 0
    for group in groups:
        for sample in group.samples:
            asked = question(0, 0, "", ())
            asked = replace(asked, sample=sample, images=sample.images())
            scores = [naive_score(model, processor, asked, o) for o in sample.options]
            right += sample.options[scores.index(max(scores))] == sample.target
    assert result.asked == result.answered == 15
    assert result.value("accuracy") == pytest.approx(right / 15)
    # options 3, 4 and 2 for the three questions: chance (1/3 + 1/4 + 1/2) / 3
    assert result.chance["all"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2) / 3)
    assert len(result.examples) == 12
