"""Which items stand in training data, and which can be answered without looking."""

from __future__ import annotations

import io

import numpy as np
import pytest

from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.leakage import hits, needs_picture
from argus.evaluation.overlap import overlap, word_prints


def world(count: int, start: int) -> list[Sample]:
    """One question per picture."""
    asked = build("scenario", "world", {"domain": "objects", "size": 32, "questions": 1}).groups(count, start)
    return [s for g in asked for s in g.samples]


def repacked(sample: Sample) -> Sample:
    """The same picture as PNG bytes, with another question."""
    buffer = io.BytesIO()
    sample.images()[0].save(buffer, "PNG")
    return Sample("copy", [Message("user", [ImagePart(buffer.getvalue()), TextPart("Describe it.")])])


def test_a_fifth_of_the_items_in_the_training_data_is_found() -> None:
    items, others = world(50, 0), world(60, 1)
    training = [*others, *map(repacked, items[::5])]
    found = overlap(items, training, words=False)
    assert found == [i % 5 == 0 for i in range(len(items))]
    assert sum(found) / len(found) == pytest.approx(0.2, abs=0.02)


def text(words: str) -> Sample:
    return Sample("t", [Message("user", [TextPart(words)])])


def test_thirteen_words_in_a_row_are_the_same_words() -> None:
    asked = "which of the two large boxes behind the very old green door is the heavier one"
    assert overlap([text(asked)], [text(f"Somebody asked {asked.upper()}!")]) == [True]
    assert overlap([text(asked)], [text(asked.replace("green", "blue"))]) == [False]
    assert overlap([text("Which colour?")], [text("Which colour? Which shape?")]) == [False]
    assert overlap([text("Which colour?")], [text("which colour")]) == [True]
    assert len(word_prints(text(asked))) == 16 - 13 + 1


def test_items_that_can_be_answered_without_looking_are_found() -> None:
    """Three of ten items say their answer; eight inspectors get these right nine times of ten, the others by chance."""
    rng = np.random.default_rng(0)
    gives_itself_away = rng.random(300) < 0.3
    right = rng.random((8, 300)) < np.where(gives_itself_away, 0.9, 0.25)
    found = ~needs_picture(hits(right), most=4)
    assert found[gives_itself_away].mean() >= 0.9
    assert found[~gives_itself_away].mean() <= 0.05
