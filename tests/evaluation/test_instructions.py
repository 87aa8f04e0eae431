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
    shown = [Sample(f"d{n}", [Message("user", [ImagePart(picture(n)), TextPart("?")])], "red") for n in range(1, 5)]
    return Sample("a", [message], "green", ["red", "green"], {"family": "colour", "demonstrations": shown})


@pytest.mark.parametrize("name", [c.name for c in components("instruction")])
def test_every_instruction_leaves_the_sample_as_it_is(name, sample):
    before = (list(sample.messages), sample.messages[0].content.copy(), list(sample.options), sample.target)
    asked = build("instruction", name).apply(sample)
    assert asked.id == sample.id
    assert asked.metadata | sample.metadata == asked.metadata  # an instruction may add to it
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


@pytest.mark.parametrize(("mode", "levels"), [("grey", {127}), ("black", {0})])
def test_a_plain_picture_in_the_pictures_place(sample, mode, levels):
    (shown,) = build("instruction", "blind", {"picture": mode}).apply(sample).images()
    assert shown.size == picture(0).size
    assert set(shown.get_flattened_data(0)) == levels


def test_noise_is_the_same_for_all_questions_about_a_picture(sample):
    noise = build("instruction", "blind", {"picture": "noise"})
    other = Sample("b", sample.messages, "red", ["red", "green"], {"picture": "p"})
    twin = Sample("c", sample.messages, "red", ["red", "green"], {"picture": "p"})
    (a,), (b,), (c,) = (noise.apply(s).images() for s in (sample, other, twin))
    assert b.tobytes() == c.tobytes() != a.tobytes()


def test_leading_names_a_wrong_option(sample):
    asked = build("instruction", "leading").apply(sample)
    assert asked.messages[0].text() == "I think the answer is red. Which colour?"
    assert (asked.options, asked.target, len(asked.images())) == (sample.options, sample.target, 1)


def test_a_free_question_has_no_wrong_option_to_name():
    free = Sample("a", [Message("user", [TextPart("Which?")])], "green")
    assert build("instruction", "leading").apply(free) == free


def test_pool_puts_questions_in_several_ways(sample):
    pool = build("instruction", "pool", {"templates": ["A {question}", "B {question}"]})
    asked = {pool.apply(Sample(str(i), sample.messages, "green", sample.options)).messages[0].text() for i in range(20)}
    assert asked == {"A Which colour?", "B Which colour?"}


@pytest.mark.parametrize(("name", "options"), [("pool", {"templates": ["no place"]}), ("leading", {"template": "{wrong}"})])
def test_a_template_without_its_places_is_refused(name, options):
    with pytest.raises(RecipeError, match="question"):
        build("instruction", name, options)
