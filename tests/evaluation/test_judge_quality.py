"""How good a judge is: agreement with the scores that people gave."""

from __future__ import annotations

import numpy as np
import pytest

from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.results import summarise


def quality(given, true):
    metric = build("metric", "judge_quality")
    rows = []
    for n, (x, y) in enumerate(zip(given, true, strict=True)):
        sample = Sample(str(n), [Message("user", [TextPart("Score?")])], str(y))
        score = metric.score(sample, Answer(f"I give {x}" if x is not None else "nothing"))
        rows.append({"id": str(n), "kind": "answer", "blind": False, "group": str(n), "family": "f", "seconds": 0.0})
        rows[-1] |= {"domain": "d", "options": [], "values": {}, "ratios": {"q": score.ratios}}
        rows[-1] |= {"notes": {"q": score.notes} if score.notes else {}}
    return {name: m.value for name, m in summarise(rows, {"q": metric}).measurements["q"].items()}


def test_judge_quality_is_what_the_formulas_say():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 7, 60)
    given = np.clip(true + rng.integers(-2, 3, 60), 0, 6)
    found = quality(given.tolist(), true.tolist())
    x, y = given - given.mean(), true - true.mean()
    assert found["all"] == pytest.approx((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))
    assert found["cosine"] == pytest.approx((given * true).sum() / np.sqrt((given**2).sum() * (true**2).sum()))
    assert found["mse"] == pytest.approx(((given - true) ** 2).mean())
    assert found["mae"] == pytest.approx(np.abs(given - true).mean())
    order = [np.array([(v < one).sum() + ((v == one).sum() - 1) / 2 for one in v]) for v in (given, true)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*order)[0, 1])
    swapped = quality(true.tolist(), given.tolist())
    assert swapped["all"] == pytest.approx(found["all"])
    moved = quality([2 * v + 1 for v in given.tolist()], true.tolist())
    assert moved["all"] == pytest.approx(found["all"])
    assert moved["mse"] > found["mse"]


def test_a_judge_that_always_says_the_same_agrees_with_nobody():
    found = quality([3, 3, 3, None], [1, 5, 6, 2])
    assert (found["all"], found["spearman"], found["unreadable"]) == (0, 0, 0.25)
    assert found["cosine"] > 0.8  # which is why it never stands alone
