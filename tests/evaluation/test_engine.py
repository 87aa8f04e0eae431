"""The engine end to end on a tiny model: numbers, resumption, bad items."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from argus.core.errors import DataError, ModelError
from argus.core.sample import ImagePart
from argus.evaluation import engine
from argus.evaluation.engine import evaluate
from argus.evaluation.metrics.accuracy import Accuracy
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.results import EvaluationResult
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
        Group(f"p{g}", [question(g, n, text, options).sample for n, (text, options) in enumerate(QUESTIONS)]) for g in range(5)
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


def test_groups_of_numbers(ask, groups):
    for n, family in enumerate(("colour", "count", "existence")):
        for group in groups:
            group.samples[n].metadata["family"] = family
    result = ask(metrics=["accuracy", "visual_tokens", "kv_bytes"], cost_samples=3, examples=4)
    rows = result.measurements["accuracy"]
    assert set(rows) == {"all", "colour", "count", "existence"}
    assert rows["all"].value == pytest.approx(sum(rows[f].value for f in ("colour", "count", "existence")) / 3)
    assert (rows["all"].n, rows["count"].n) == (15, 5)
    assert rows["all"].low <= rows["all"].value <= rows["all"].high
    assert result.measurements["visual_tokens"]["all"].value == 16
    assert result.measurements["kv_bytes"]["all"].n == 3
    assert len(result.examples) == 4
    assert EvaluationResult.from_record(json.loads(json.dumps(result.record()))) == result


def test_blind_answers_do_not_see_the_picture(ask, groups):
    records = MemoryRecords()
    result = ask(records, blind=True)
    blind = [r for r in records.rows if r.get("blind")]
    assert len(blind) == 15
    by_question = {}
    for row in blind:
        by_question.setdefault(row["question"], []).append(row["option_scores"])
    for rows in by_question.values():  # the same question about five pictures scores the same
        for row in rows[1:]:
            assert row == pytest.approx(rows[0], abs=1e-4)
    assert result.measurements["accuracy"]["blind"].n == 15
    assert result.asked == 15


def test_batch_size_changes_nothing(ask):
    answers = []
    for size in (1, 2, 5):
        records = MemoryRecords()
        ask(records, batch_size=size)
        answers.append([(r["id"], r["answer"]) for r in records.rows if r["kind"] == "answer"])
    assert answers[0] == answers[1] == answers[2]


def test_a_missing_picture_is_recorded_not_scored(ask, groups, tmp_path):
    for sample in groups[3].samples:
        sample.messages[0].content[0] = ImagePart(tmp_path / "gone.png")
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    groups[4].samples[0].messages[0].content[0] = ImagePart(torn)
    for sample in groups[4].samples[1:]:
        sample.messages[0].content[0] = groups[4].samples[0].messages[0].content[0]
    records = MemoryRecords()
    result = ask(records)
    assert (result.asked, result.answered) == (15, 9)
    assert result.measurements["accuracy"]["all"].n == 9
    assert result.unreadable == pytest.approx(6 / 15)
    reasons = [r["error"] for r in records.rows if r.get("error")]
    assert len(reasons) == 6
    assert sum("gone.png" in r for r in reasons) == 3


def test_what_the_scenario_could_not_read_is_counted(ask, groups):
    groups.append(Group("p9", [], {"data.jsonl:7": "torn line"}))
    result = ask()
    assert (result.asked, result.answered, result.errors) == (16, 15, {"torn line": 1})


def test_questions_without_options_are_skipped_by_likelihood(ask, groups):
    groups[0].samples[0].options = []
    result = ask()
    assert result.skipped == {"has no options to choose from": 1}
    assert (result.asked, result.answered, sum(result.errors.values())) == (15, 14, 0)
    assert ask(inferencer={"generate": {"max_new_tokens": 2}}).answered == 15


def test_a_failing_question_does_not_stop_the_others(ask, monkeypatch):
    score = engine.LocalModel.score

    def fails(self, questions, mean, end=True):
        if any(q.group == "p3" for q in questions):
            raise RuntimeError("out of memory")
        return score(self, questions, mean, end)

    monkeypatch.setattr(engine.LocalModel, "score", fails)
    result = ask()
    assert result.errors == {"RuntimeError: out of memory": 3}
    assert result.answered == 12


class Picky(Accuracy):
    """Cannot score the second question about the third picture."""

    def scores(self, samples, answers):
        if any(sample.metadata.get("torn") for sample in samples):
            raise DataError("the gold boxes are torn", where="items.json:7")
        return super().scores(samples, answers)


def test_a_question_that_a_metric_cannot_score_does_not_stop_the_others(ask, groups, monkeypatch):
    plain = MemoryRecords()
    expected = ask(plain)
    groups[2].samples[1].metadata["torn"] = True
    monkeypatch.setattr(engine, "build_metrics", lambda _: {"accuracy": Picky(Accuracy.Options())})
    records = MemoryRecords()
    result = ask(records)
    (failed,) = [r for r in records.rows if r.get("error")]
    assert failed["id"] == groups[2].samples[1].id
    assert "the gold boxes are torn" in failed["error"]
    before = {r["id"]: r for r in plain.rows}
    assert failed["answer"] == before[failed["id"]]["answer"]  # what was said is kept
    assert failed["correct"] is None
    assert (result.asked, result.answered, sum(result.errors.values())) == (15, 14, 1)
    others = [r for r in records.rows if r["kind"] == "answer" and not r.get("error")]
    assert [r["correct"] for r in others] == [before[r["id"]]["correct"] for r in others]
    assert expected.answered == 15
    assert ask(records) == result  # nothing is asked again


def test_a_judge_that_cannot_be_asked_ends_the_run(ask, monkeypatch):
    def refused(self, samples, answers):
        raise ModelError("HTTP 401: wrong key")

    monkeypatch.setattr(Picky, "scores", refused)
    monkeypatch.setattr(engine, "build_metrics", lambda _: {"accuracy": Picky(Accuracy.Options())})
    with pytest.raises(ModelError, match="wrong key"):
        ask()


def test_a_model_that_fails_at_everything_is_an_error(ask, monkeypatch):
    def fails(self, questions, mean, end=True):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(engine.LocalModel, "score", fails)
    with pytest.raises(RuntimeError, match="no such kernel"):
        ask()


def test_a_resumed_run_ends_with_the_same_numbers(ask):
    whole = MemoryRecords()
    expected = ask(whole, metrics=["accuracy", "visual_tokens"], cost_samples=2)
    for stop in (1, 4, 7, 16):  # records that survived: inside and between batches
        part = MemoryRecords(list(whole.rows[:stop]))
        result = ask(part, metrics=["accuracy", "visual_tokens"], cost_samples=2)
        assert len({r["id"] for r in part.rows}) == len(part.rows) == len(whole.rows)
        assert result.measurements == expected.measurements
        scores = {r["id"]: r.get("option_scores") for r in part.rows}
        assert scores == {r["id"]: r.get("option_scores") for r in whole.rows}  # to the last bit


def test_finished_runs_ask_nothing(ask, monkeypatch):
    records = MemoryRecords()
    first = ask(records)

    def never(self, questions, mean, end=True):
        raise AssertionError("asked again")

    monkeypatch.setattr(engine.LocalModel, "score", never)
    assert ask(records) == first


def test_a_fresh_seed_is_drawn_once_and_kept(ask):
    records = MemoryRecords()
    seed = ask(records, seed="fresh").seed
    assert seed > 0
    assert ask(records, seed="fresh").seed == seed
    assert ask(seed=5).seed == 5
