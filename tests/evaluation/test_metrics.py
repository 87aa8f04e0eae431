"""Answer metrics on answers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.core.sample import Sample, box_text
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.accuracy import Accuracy, AccuracyOptions
from argus.evaluation.metrics.iou import IoU, IoUOptions, iou, read_box
from argus.evaluation.metrics.normalise import NORMALISATIONS, number_1, text_1


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("exact", "  Red. ", "Red."),
        ("text-1", "  Light  BLUE. ", "light blue"),
        ("text-1", "'red'!", "red"),
        ("text-1", "-3.5%", "-3.5%"),
        ("text-1", "x-ray (left)", "x-ray left"),
        ("text-1", "Ａ", "a"),  # full-width letter
        ("text-1", " . ", ""),
        ("text-1", "three", "three"),
        ("number-1", "Three stars.", "3 stars"),
        ("number-1", "1,200", "1200"),
        ("number-1", "1,20", "1,20"),
    ],
)
def test_normalisation(rule, text, expected):
    assert NORMALISATIONS[rule](text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert text_1(text_1(text)) == text_1(text)
    assert number_1(number_1(text)) == number_1(text)


@pytest.mark.parametrize(("answer", "value"), [("Red.", 1.0), ("dark red", 0.0), ("", 0.0), ("reddish", 0.0)])
def test_accuracy(answer, value):
    assert Accuracy(AccuracyOptions()).score(Sample("", [], "red"), Answer(answer)).value == value


def test_number_words_only_where_asked_for():
    sample = Sample("", [], "3")
    assert Accuracy(AccuracyOptions()).score(sample, Answer("three")).value == 0
    assert Accuracy(AccuracyOptions(normalisation="number-1")).score(sample, Answer("Three")).value == 1


def test_accuracy_leaves_boxes_and_captions_to_others():
    accuracy = Accuracy(AccuracyOptions())
    assert accuracy.applies(Sample("", [], "red", ["red", "blue"]))
    assert accuracy.applies(Sample("", [], "red"))
    assert not accuracy.applies(Sample("", [], "[1, 2, 3, 4]"))
    assert not accuracy.applies(Sample("", [], "a red star", metadata={"facts": ("red star",)}))
    assert not accuracy.applies(Sample("", []))


def test_iou_by_hand():
    # 2 x 2 and 2 x 2 boxes that share 1 x 2: 2 / (4 + 4 - 2)
    assert iou((0.0, 0.0, 0.2, 0.2), (0.1, 0.0, 0.3, 0.2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 0.1, 0.1), (0.5, 0.5, 1, 1)) == 0


@pytest.mark.parametrize(
    ("answer", "value", "extracted"),
    [
        ("[10, 10, 29, 29]", 1.0, "IoU 1.000"),
        ("It is at [10, 10, 29, 19].", 1.0, "IoU 0.500"),  # half of it: exactly the threshold
        ("(0.1, 0.1, 0.3, 0.19)", 0.0, "IoU 0.450"),
        ("[60, 60, 70, 70]", 0.0, "IoU 0.000"),
        ("top left", 0.0, "no box"),
        ("[30, 10, 20, 20]", 0.0, "no box"),  # right of its own right edge
    ],
)
def test_boxes(answer, value, extracted):
    score = IoU(IoUOptions()).score(Sample("", [], "[10, 10, 29, 29]"), Answer(answer))
    assert (score.value, score.extracted) == (value, extracted)


@given(st.lists(st.integers(0, 99), min_size=4, max_size=4))
def test_reading_what_was_written(corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = read_box(box_text((x1 / 100 + 0.001, y1 / 100 + 0.001, x2 / 100 + 0.001, y2 / 100 + 0.001)))
    assert box == pytest.approx((x1 / 100, y1 / 100, (x2 + 1) / 100, (y2 + 1) / 100))
    assert iou(box, box) == pytest.approx(1)
