"""Dialogues: the model's own answers stand in the conversation, to the letter."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from argus.core.registry import build
from argus.core.sample import ImagePart
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.inferencers.dialogue import continued
from argus.evaluation.local import LocalModel
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.mmdu import MARKER, dialogue
from argus.evaluation.tree import Tree, pack
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


# The cache is kept from turn to turn


def long_dialogue(later_picture=False):
    """Five turns about two pictures; a third one may come with the fourth turn."""
    marks = {0: MARKER * 2, **({3: MARKER} if later_picture else {})}
    said = [(f"{marks.get(n, '')}question {n}", "") for n in range(5)]
    return dialogue("d", said, [picture(k) for k in range(2 + later_picture)], "here")


@pytest.mark.parametrize("later_picture", [False, True])
@pytest.mark.parametrize("keep", [None, 0.5])
def test_a_kept_cache_gives_the_answers_and_logits_of_recomputing(model, processor, monkeypatch, later_picture, keep):
    group = long_dialogue(later_picture)
    thread, said = None, []
    with attach(model, "random", keep=keep) if keep else nullcontext() as attachment:
        local = LocalModel(model, processor, attachment)
        for sample in group.samples:
            asked = Question("d", continued(sample, said), sample.images())
            (whole,) = local.generate([asked], 6)
            thread = thread or local.thread()
            answer = local.go_on(thread, asked, 6)
            assert (answer.text, answer.tokens) == (whole.text, whole.tokens)
            (prompt,) = local.held.prompter.prompts([asked], options=False)
            with torch.inference_mode():
                last = pack([[Tree(prompt.tail[-1:], [])]], thread.prefix.length)
                kept = local.together.feed(thread.prefix, last)[0, -1].log_softmax(-1)
                thread.prefix.cache.crop(-1)
                (prefix,) = local.together.prefixes([asked], [prompt])
                anew = local.together.feed(prefix, pack([[Tree(prompt.tail, [])]], prefix.length))[0, -1].log_softmax(-1)
            assert torch.allclose(kept, anew, atol=1e-4)
            said.append(answer.text)


def test_a_turn_feeds_only_what_is_new(model, processor, monkeypatch):
    local, fed = LocalModel(model, processor), []
    feed, prefixes = local.together.feed, local.together.prefixes
    monkeypatch.setattr(local.together, "feed", lambda prefix, packed: fed.append(packed.ids.shape[1]) or feed(prefix, packed))
    monkeypatch.setattr(local.together, "prefixes", lambda *given: fed.append("pictures") or prefixes(*given))
    local.shares = local.proved = True
    answers = build("inferencer", "dialogue", {"max_new_tokens": 4}).answer(local, questions(long_dialogue()))
    assert fed.count("pictures") == 1
    tokens = [n for n in fed if n != "pictures"]
    assert tokens[1::2] == [1] * 5  # the last token of each prompt, whose logits are read
    new = [len(processor.tokenizer(f"{answers[n - 1].text}</s><user>question {n}<assistant>").input_ids) for n in range(1, 5)]
    assert all(count <= most + 4 for count, most in zip(tokens[2::2], new, strict=True))  # byte tokens of an answer may vary
