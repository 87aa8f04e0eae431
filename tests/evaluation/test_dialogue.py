"""Dialogues: the model's own answers stand in the conversation, to the letter."""

from __future__ import annotations

import pytest

from argus.core.registry import build
from argus.core.sample import ImagePart
from argus.evaluation.engine import MemoryRecords, evaluate
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.local import LocalModel
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.scenarios.mmdu import MARKER, dialogue
from argus.methods.attach import attach

from .conftest import naive_score, picture


class Parrot:
    """Answers with a number of its own, and remembers what it was asked."""

    def __init__(self):
        self.asked: list[Question] = []

    def generate(self, questions, max_new_tokens):
        self.asked += questions
        return [Answer(f"mine {len(self.asked)}.{i}  x") for i, _ in enumerate(questions)]


def album(number=0, turns=4, pictures=3):
    """Pictures are shown in turns 1 and 3."""
    marks = {0: MARKER * (pictures - 1), 2: MARKER}
    said = [(f"{marks.get(n, '')}question {n}", f"reference {n}") for n in range(turns)]
    return dialogue(f"d{number}", said, [picture(10 * number + k) for k in range(pictures)], "here")


def questions(*groups):
    return [Question(g.id, s, s.images(), n) for g in groups for n, s in enumerate(g.samples)]


def test_the_history_is_the_models_own_answers_byte_for_byte():
    parrot = Parrot()
    answers = build("inferencer", "dialogue").answer(parrot, questions(album(0), album(1, turns=3)))
    assert len(answers) == 7
    own = {"d0": [a.text for a in answers[:4]], "d1": [a.text for a in answers[4:]]}
    assert len(parrot.asked) == 7
    for asked in parrot.asked:
        turn = int(asked.sample.id.partition("/")[2])
        roles = [m.role for m in asked.sample.messages]
        assert roles == ["user", "assistant"] * (turn - 1) + ["user"]
        assert [m.text() for m in asked.sample.messages[::2]] == [f"question {n}" for n in range(turn)]
        assert [m.text() for m in asked.sample.messages[1::2]] == own[asked.group][: turn - 1]
    assert [q.group for q in parrot.asked] == ["d0", "d1", "d0", "d1", "d0", "d1", "d0"]  # a turn of all dialogues together


def test_with_references_the_history_is_theirs():
    parrot = Parrot()
    build("inferencer", "dialogue", {"history": "reference"}).answer(parrot, questions(album()))
    assert [m.text() for m in parrot.asked[3].sample.messages[1::2]] == ["reference 0", "reference 1", "reference 2"]


def test_pictures_come_with_the_turn_that_shows_them():
    parrot = Parrot()
    build("inferencer", "dialogue").answer(parrot, questions(album()))
    assert [len(q.sample.images()) for q in parrot.asked] == [2, 2, 3, 3]
    (first, *_, last) = (q.sample for q in parrot.asked)
    assert [isinstance(p, ImagePart) for p in first.messages[0].content] == [True, True, False]
    assert [isinstance(p, ImagePart) for p in last.messages[4].content] == [True, False]


@pytest.fixture
def ask(model, processor, monkeypatch):
    groups = [album(n, turns=3) for n in range(3)]
    scenario = type("Listed", (), {"groups": lambda self, count, seed: iter(groups)})()
    monkeypatch.setattr("argus.evaluation.engine.build_scenario", lambda options: scenario)

    def run(records, **changes):
        options = EvaluationOptions(
            scenario="file", inferencer={"dialogue": {"max_new_tokens": 4}}, metrics=["accuracy"], **{"batch_size": 2, **changes}
        )
        return evaluate(model, processor, options, run_part=records, progress=False)

    return run


def test_a_real_model_goes_on_from_what_it_said(ask, model, processor):
    records = MemoryRecords()
    assert ask(records).answered == 9
    rows = {r["id"]: r for r in records.rows if r["kind"] == "answer"}
    sample = album(1, turns=3).samples[2]
    for place in (1, 3):
        sample.messages[place].content[0].text = rows[f"d1/{(place + 1) // 2}"]["answer"]
    (alone,) = LocalModel(model, processor).generate([Question("d1", sample, sample.images())], 4)
    assert rows["d1/3"]["answer"] == alone.text
    if alone.text:
        asked = Question("d1", sample, sample.images())
        assert naive_score(model, processor, asked, alone.text) < 0


def test_a_resumed_dialogue_ends_the_same(ask):
    whole = MemoryRecords()
    ask(whole)
    for kept in (1, 3, 6, 9):
        part = MemoryRecords(list(whole.rows[:kept]))
        ask(part)
        assert {r["id"]: r.get("answer") for r in part.rows} == {r["id"]: r.get("answer") for r in whole.rows}
        assert len(part.rows) == len(whole.rows)


def test_a_dialogue_with_a_missing_picture_is_set_aside_from_there_on(ask, monkeypatch, tmp_path):
    groups = [album(0, turns=4), album(1, turns=4)]
    groups[0].samples[2].messages[4].content[0] = ImagePart(tmp_path / "gone.png")  # shared by turns 3 and 4
    scenario = type("Listed", (), {"groups": lambda self, count, seed: iter(groups)})()
    monkeypatch.setattr("argus.evaluation.engine.build_scenario", lambda options: scenario)
    result = ask(MemoryRecords())
    assert (result.answered, sum(result.errors.values())) == (6, 2)


def test_a_dialogue_goes_with_techniques(ask, model):
    """With all tokens kept it is the bare model's dialogue, with a quarter of every picture's another."""
    answers = {}
    for keep in (None, 1.0, 0.25):
        records = MemoryRecords()
        if keep is None:
            assert ask(records).answered == 9
        else:
            with attach(model, "random", keep=keep):
                assert ask(records).answered == 9
        answers[keep] = {r["id"]: r.get("answer") for r in records.rows}
    assert answers[1.0] == answers[None] != answers[0.25]
