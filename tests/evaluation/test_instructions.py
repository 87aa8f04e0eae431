"""What the model gets to read."""

from __future__ import annotations

import pytest

from argus.core.errors import RecipeError
from argus.core.registry import build, components
from argus.core.sample import ImagePart, Message, Sample, TextPart

from .conftest import picture


@pytest.fixture
def sample():
    message = Message("user", [ImagePart(picture(0)), TextPart("Which colour?")])
    return Sample("a", [message], "green", ["red", "green"], {"family": "colour"})


@pytest.mark.parametrize("name", [c.name for c in components("instruction")])
def test_every_instruction_leaves_the_sample_as_it_is(name, sample):
    before = (list(sample.messages), sample.messages[0].content.copy(), list(sample.options), sample.target)
    asked = build("instruction", name).apply(sample)
    assert (asked.id, asked.metadata) == (sample.id, sample.metadata)
    assert (list(sample.messages), sample.messages[0].content, list(sample.options), sample.target) == before


def test_plain(sample):
    assert build("instruction", "plain").apply(sample) == sample


def test_blind_shows_no_picture(sample):
    asked = build("instruction", "blind").apply(sample)
    assert asked.images() == []
    assert asked.messages[0].text() == "Which colour?"


def test_letters(sample):
    asked = build("instruction", "options").apply(sample)
    assert asked.messages[0].text() == "Which colour?\nA. red\nB. green\nAnswer with the letter."
    assert (asked.options, asked.target) == (["A", "B"], "B")
    assert len(asked.images()) == 1


def test_option_texts(sample):
    asked = build("instruction", "options", {"answer": "text", "request": "Choose."}).apply(sample)
    assert asked.messages[0].text() == "Which colour?\nA. red\nB. green\nChoose."
    assert (asked.options, asked.target) == (["red", "green"], "green")


def test_a_free_question_stays_free(sample):
    sample.options = []
    assert build("instruction", "options").apply(sample) == sample


def test_a_wrong_option_of_an_instruction_is_named():
    with pytest.raises(RecipeError, match=r"instruction 'options': option 'answer'"):
        build("instruction", "options", {"answer": "number"})
