"""Cues are read out of the model's own answer."""

from __future__ import annotations

import pytest

from argus.methods.search.cues import EXAMPLES, PHRASE, conversation, parse


@pytest.mark.parametrize(
    ("text", "cues"),
    [
        ("man and dog.", ["man", "dog"]),
        ("lamp post, fir and tent.", ["lamp post", "fir", "tent"]),
        ("cup, plate, and fork", ["cup", "plate", "fork"]),
        ("all sailing boats.", ["all sailing boats"]),
        ("man and his bag.", ["man"]),
        ("hisser and theme park.", ["hisser", "theme park"]),  # words that begin like pronouns
    ],
)
def test_cues(text: str, cues: list[str]) -> None:
    assert parse(f"I think so. {PHRASE}{text}") == cues


def test_other_answers_name_no_cue() -> None:
    assert parse("A man and his bag.") == []
    assert parse("") == []


def test_the_examples_follow_their_own_form() -> None:
    turns = conversation("Where is the cat?")
    assert [t.role for t in turns] == ["user", "assistant"] * 6 + ["user"]
    assert turns[-1].text() == "Where is the cat?"
    for turn, (_, _, cues) in zip(turns[1::2], EXAMPLES, strict=True):
        assert ", ".join(parse(turn.text())) == cues.replace(" and ", ", ")
