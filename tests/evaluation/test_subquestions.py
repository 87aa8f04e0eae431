"""Answers concluded from sub-questions, as LVLM-eHub (arXiv 2306.09265) asks them."""

from __future__ import annotations

import pytest

from argus.core.errors import UnknownNameError
from argus.core.registry import build
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.inferencers.partners import ASKERS, REASONERS, Case
from argus.evaluation.inferencers.subquestions import conclusion, subquestions
from argus.evaluation.judges.asked import UnreadableError

from .conftest import question


class Seeing:
    """A model that answers by a table of texts, and 'nothing' otherwise."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known, self.asked = known, []

    def generate(self, questions, max_new_tokens):
        texts = [q.sample.messages[-1].text() for q in questions]
        self.asked += texts
        return [Answer(self.known.get(text, "")) for text in texts]


RULES = {"asker": "scripted:attributes", "reasoner": "scripted:attributes", "short_answer": "{question}"}
STAR = question(0, 0, "Is there a red star?", ("yes", "no"))


@pytest.mark.parametrize(("colour", "shape", "answer"), [("red", "star", "yes"), ("red", "ring", "no"), ("blue", "star", "no")])
def test_the_answer_is_concluded_from_sub_answers(colour: str, shape: str, answer: str) -> None:
    model = Seeing({"What colour is the thing?": f"{colour} Question: and", "What shape is the thing?": shape})
    (found,) = build("inferencer", "subquestions", RULES).answer(model, [STAR])
    assert (found.text, found.notes["rounds"], found.notes["undecided"]) == (answer, 1, False)
    assert found.notes["exchange"] == [("What colour is the thing?", colour), ("What shape is the thing?", shape)]
    assert model.asked[0] == "Describe the picture in detail."


def test_the_rounds_end(monkeypatch) -> None:
    """A reasoner that is never sure has to choose in the last round; one that is sure later is asked no more."""
    monkeypatch.setitem(ASKERS, "more", lambda case: f"Sub-question {len(case.exchange)}: What is {len(case.exchange)}?")
    monkeypatch.setitem(
        REASONERS, "third", lambda case, last: f"More Likely Answer: {2 if len(case.exchange) == 3 else 'not sure'}"
    )
    options = {**RULES, "asker": "scripted:more", "reasoner": "scripted:third"}
    model = Seeing({})
    (found,) = build("inferencer", "subquestions", {**options, "rounds": 5}).answer(model, [STAR])
    assert (found.text, found.notes["rounds"], found.notes["undecided"]) == ("no", 3, False)
    for rounds in (1, 2):
        (found,) = build("inferencer", "subquestions", {**options, "rounds": rounds}).answer(model, [STAR])
        assert found.text in STAR.sample.options
        assert (found.notes["rounds"], len(found.notes["exchange"]), found.notes["undecided"]) == (rounds, rounds, True)


def test_questions_of_a_batch_end_in_rounds_of_their_own(monkeypatch) -> None:
    monkeypatch.setitem(ASKERS, "more", lambda case: f"Sub-question 1: {case.question} {len(case.exchange)}")
    monkeypatch.setitem(
        REASONERS,
        "long",
        lambda case, last: f"More Likely Answer: {1 if len(case.exchange) == int(case.question) else 'not sure'}",
    )
    asked = [question(n, n, str(n), ("yes", "no")) for n in (3, 1, 2)]
    inferencer = build("inferencer", "subquestions", {**RULES, "asker": "scripted:more", "reasoner": "scripted:long"})
    assert [a.notes["rounds"] for a in inferencer.answer(Seeing({}), asked)] == [3, 1, 2]


def test_partners_replies_are_read() -> None:
    assert subquestions("Well.\nSub-question 1: What is red?\nSub-Question 2:  What is it on?") == [
        "What is red?",
        "What is it on?",
    ]
    assert conclusion("Analysis: so. More Likely Answer: 3", 4) == 3
    assert conclusion("More Likely Answer: 'not sure'", 4) == 0
    for reply in ("More Likely Answer: 5", "3", ""):
        with pytest.raises(UnreadableError):
            conclusion(reply, 4)
    with pytest.raises(UnreadableError):
        subquestions("What is red?")


def test_rules_decline_what_they_cannot_tell() -> None:
    case = Case("Is there a red star?", ["yes", "no"], exchange=[("What colour is the thing?", "")])
    assert "not sure" in REASONERS["attributes"](case, False)
    assert conclusion(REASONERS["attributes"](case, True), 2) == 1
    assert subquestions(ASKERS["attributes"](Case("Who is it?", []))) == ["Who is it?"]
    with pytest.raises(UnknownNameError, match="Did you mean 'attributes'"):
        build("inferencer", "subquestions", {**RULES, "asker": "scripted:atributes"})
