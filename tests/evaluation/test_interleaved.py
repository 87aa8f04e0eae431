"""Texts and pictures in one text: written and read back, and described by a model that makes no pictures."""

from __future__ import annotations

import numpy as np
import pytest

from argus.core.images import encode_png
from argus.core.registry import build
from argus.core.sample import ImagePart, TextPart
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.interleaved import read, written
from argus.world.telling import drawn

from .conftest import picture
from .judges.stories import BEFORE, story


def test_parts_are_written_and_read_back(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(picture(0)))
    text = written([TextPart("one"), ImagePart(tmp_path / "a.png"), TextPart("two"), ImagePart(picture(1))])
    found = read(text, drawn)
    assert [part.type for part in found] == ["text", "image", "text", "image"]
    assert found[1].image == (tmp_path / "a.png").read_bytes()
    assert written(found) == text


@pytest.mark.parametrize("torn", ["zz!", "iVBORw0KGgo=", ""])
def test_a_torn_picture_in_an_answer_is_left_out(torn):
    """A model may write anything; an evaluation does not end for it."""
    found = read(f"one <image>data:image/png;base64,{torn}</image> two", drawn)
    assert found == [TextPart("one"), TextPart("two")]


def test_descriptions_are_drawn_and_others_stay_words():
    first, shown, second, other = read(f"one <image>{BEFORE}</image> two <image>a sunset</image>", drawn)
    assert (first.text, second.text, other.text) == ("one", "two", "a sunset")
    assert np.array_equal(np.asarray(shown.image), drawn(BEFORE))
    assert (np.asarray(shown.image)[:48, :48] == (215, 35, 35)).all(-1).sum() > 100  # the red star at the top left


class Author:
    """Understands pictures and makes none."""

    def generate(self, questions, max_new_tokens):
        self.asked = list(questions)
        return [Answer("The red star turns blue. <image>a large blue star at the top left</image>") for _ in questions]


class Painter(Author):
    """Makes pictures."""

    def interleave(self, questions, max_new_tokens):
        return [[TextPart("The red star turns blue."), ImagePart(picture(0))] for _ in questions]


def test_who_makes_no_pictures_is_asked_to_describe_them():
    author = Author()
    asked = [Question("g", story(), [])]
    (answer,) = build("inferencer", "interleaved", {"ask": " Describe pictures."}).answer(author, asked)
    assert author.asked[0].sample.messages[-1].text() == "Q1Q2 Describe pictures."
    judge = build("judge", "mmie", {"model": "scripted:continued"})
    (request,) = judge.requests(story(facts=(BEFORE,)), answer.text)
    assert len(request.images) == 2  # of the question, and the drawn one
    (painted,) = build("inferencer", "interleaved").answer(Painter(), asked)
    (request,) = judge.requests(story(facts=(BEFORE,)), painted.text)
    assert np.array_equal(np.asarray(request.images[1]), np.asarray(picture(0)))
