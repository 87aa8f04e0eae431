"""Several judges, and their agreement with people and with the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from argus.core.errors import RecipeError
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.judges.asked import RULES
from argus.evaluation.judges.base import Judgement
from argus.evaluation.judges.together import averaged, majority, voted
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.base import Group
from argus.evaluation.statistics import agreement

from .conftest import item


def judged(value, label):
    return Judgement(value, label, {"unreadable": (float(value is None), 1.0), "win rate": (value or 0.0, 1.0)})


def test_the_mean_leaves_out_who_could_not_be_read():
    found = averaged([judged(4.0, "a"), judged(None, None), judged(8.0, "b"), judged(9.0, "b")])
    assert (found.value, found.label) == (7.0, "b")
    assert found.ratios == {"unreadable": (1.0, 4.0), "win rate": (21.0, 4.0)}


def test_a_vote_needs_a_majority():
    worth = {"right": 1.0, "wrong": 0.0}.__getitem__
    two = voted([judged(1.0, "right"), judged(0.0, "wrong"), judged(1.0, "right")], worth)
    assert (two.value, two.label, two.ratios["undecided"]) == (1.0, "right", (0.0, 1.0))
    tie = voted([judged(1.0, "right"), judged(0.0, "wrong"), judged(None, None)], worth)
    assert (tie.value, tie.label) == (None, None)
    assert tie.ratios == {"unreadable": (1.0, 3.0), "undecided": (1.0, 1.0)}
    assert majority([judged(None, None)]) is None


def test_kappa_by_hand_and_by_brute_force():
    """20 and 15 of 50 agree on yes and no, 5 and 10 do not: p_o 0.7, p_e 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa 0.4."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert agreement(pairs) == (pytest.approx(0.7), pytest.approx(0.4))
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 200))
    by_lot = sum((a == k).mean() * (b == k).mean() for k in range(4))
    expected = ((a == b).mean() - by_lot) / (1 - by_lot)
    assert agreement(zip(map(str, a), map(str, b), strict=True))[1] == pytest.approx(expected)
    assert math.isnan(agreement([("a", "a")] * 3)[1])
    assert all(map(math.isnan, agreement([])))


def metric(**options):
    return build("metric", "judge", options)


def grade(rule):
    return {"grade": {"model": f"scripted:{rule}"}}


@pytest.fixture
def rules(monkeypatch):
    """Judges who always say the same."""
    monkeypatch.setitem(RULES, "kind", lambda known, answers: [1.0 for _ in answers])
    monkeypatch.setitem(RULES, "harsh", lambda known, answers: [0.0 for _ in answers])


def test_judges_vote_through_the_metric(rules):
    vote = metric(of=[grade("truth"), grade("kind"), grade("harsh")], combine="vote")
    right, wrong = vote.scores([item()] * 2, [Answer("a red star"), Answer("green")])
    assert (right.value, wrong.value) == (1.0, 0.0)  # kind and harsh cancel out
    assert len(right.notes["verdicts"]) == 3
    mean = metric(of=[grade("truth"), grade("kind"), grade("harsh")])
    assert mean.score(item(), Answer("a red star")).value == pytest.approx(2 / 3)


def test_a_vote_on_pairs_is_a_share_of_wins():
    one = {"touchstone": {"model": "scripted:truth"}}
    vote = metric(of=[one, one], combine="vote")
    assert (vote.unit, metric(of=one).unit) == ("share", "points")
    assert vote.score(item(), Answer("a red star")).value == 0.5
    assert vote.score(item(), Answer("green")).value == 0.0


def test_scales_are_not_mixed():
    with pytest.raises(RecipeError, match="different scales"):
        metric(of=[grade("truth"), {"mmdu": {"model": "scripted:truth"}}])
    with pytest.raises(RecipeError, match="a list"):
        metric(of={**grade("truth"), "mmdu": {"model": "scripted:truth"}})
    with pytest.raises(RecipeError, match="not from both"):
        metric(of=grade("truth"), labels="human", truth=grade("truth"))


def test_agreement_with_people_and_with_the_truth(rules, model, processor, monkeypatch):
    """The kind judge says four times correct; people said so of three, the truth of none (a random model says nothing right)."""
    samples = [item(n, human="incorrect" if n == 2 else "correct") for n in range(4)]
    groups = [Group(s.id, [s]) for s in samples]
    scenario = type("Listed", (), {"groups": lambda self, count, seed: iter(groups)})()
    monkeypatch.setattr("argus.evaluation.engine.build_scenario", lambda options: scenario)

    def ask(**options):
        given = EvaluationOptions(scenario="file", inferencer={"generate": {"max_new_tokens": 2}}, metrics=[{"judge": options}])
        return evaluate(model, processor, given, run_part=MemoryRecords(), progress=False)

    people = ask(of=grade("kind"), labels="human")
    assert (people.value("judge"), people.value("judge", "agreement"), people.value("judge", "kappa")) == (1.0, 0.75, 0.0)
    true = ask(of=grade("kind"), truth=grade("truth"))
    assert (true.value("judge", "agreement"), true.value("judge", "kappa")) == (0.0, 0.0)
    itself = ask(of=grade("truth"), truth=grade("truth"))
    assert itself.value("judge", "agreement") == 1.0
