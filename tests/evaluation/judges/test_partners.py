"""Sub-questions by language models: what asker and reasoner are told, behind an endpoint."""

from __future__ import annotations

from argus.core.registry import build
from argus.evaluation.local import LocalModel

from ..conftest import question


def test_partners_are_told_question_options_and_answers_and_asked_once(server, model, processor, tmp_path) -> None:
    asked = question(0, 0, "Is there a red star?", ("yes", "no"))

    def reply(body: dict) -> str:
        text = body["messages"][-1]["content"][0]["text"]
        assert all(part["type"] == "text" for message in body["messages"] for part in message["content"])
        assert "Is there a red star?" in text
        assert "1. yes\n2. no" in text
        if "Write two or three" in text:
            return "Sub-question 1: What is seen?"
        if "Write further" in text:
            assert "Analysis: unclear." in text
            return "Nothing more."  # cannot be read: the reasoner has to do with what there is
        assert "Sub-question: What is seen?\nAnswer: " in text
        return "Analysis: unclear. More Likely Answer: not sure" if "not sure" in text else "More Likely Answer: 2"

    server.reply = reply
    given = {"asker": server.reference, "reasoner": server.reference, "rounds": 2, "tries": 2, "max_new_tokens": 3}
    given["cache"] = tmp_path / "said.jsonl"
    local = LocalModel(model, processor)
    (found,) = build("inferencer", "subquestions", given).answer(local, [asked])
    assert (found.text, found.notes["rounds"], found.notes["undecided"]) == ("no", 2, False)
    assert len(server.bodies) == 1 + 1 + 2 + 1  # ask, conclude, ask for more twice, decide
    assert build("inferencer", "subquestions", given).answer(local, [asked]) == [found]
    assert len(server.bodies) == 5


def test_a_reasoner_that_never_decides_is_asked_again_and_then_undecided(server, model, processor, tmp_path) -> None:
    server.reply = lambda body: "More Likely Answer: not sure"
    given = {
        "asker": "scripted:attributes",
        "reasoner": server.reference,
        "rounds": 1,
        "tries": 3,
        "cache": tmp_path / "said.jsonl",
    }
    asked = question(0, 0, "Is there a red star?", ("yes", "no"))
    (found,) = build("inferencer", "subquestions", {**given, "max_new_tokens": 3}).answer(LocalModel(model, processor), [asked])
    assert (found.text, found.notes["undecided"], len(server.bodies)) == ("yes", True, 3)
