"""Answer metrics on answers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.core.errors import DataError
from argus.core.sample import Sample, box_text
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.accuracy import Accuracy, AccuracyOptions
from argus.evaluation.metrics.chair import Chair, ChairOptions
from argus.evaluation.metrics.iou import IoU, IoUOptions, iou, read_box
from argus.evaluation.metrics.mme_pairs import MMEPairs
from argus.evaluation.metrics.normalise import NORMALISATIONS, number_1, text_1
from argus.evaluation.metrics.pope import Pope, PopeOptions
from argus.evaluation.results import summarise
from argus.evaluation.statistics import ratio


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
        ("[0.1, 0.1, 0.3]", 0.0, "no box"),
        ("[0.050, 0.1, 0.3, 0.300]", 1.0, "IoU 0.800"),  # 0.050 is one number, not 050 behind a dot
        ("[0.0, 0.0, 1.0, 1.0]", 0.0, "IoU 0.040"),
        ("[0.1, 0.1, 1.1, 0.3]", 0.0, "no box"),
        ("[30, 10, 20, 20]", 0.0, "no box"),  # right of its own right edge
    ],
)
def test_boxes(answer, value, extracted):
    score = IoU(IoUOptions()).score(Sample("", [], "[10, 10, 29, 29]"), Answer(answer))
    assert (score.value, score.extracted) == (value, extracted)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 19), st.integers(1, 39))
def test_half_of_a_box_is_half_wherever_it_lies(x, y, width, height):
    whole, half = ((x, y, x + times * width - 1, y + height - 1) for times in (2, 1))
    sample = Sample("", [], f"[{', '.join(map(str, whole))}]")
    assert IoU(IoUOptions()).score(sample, Answer(f"[{', '.join(map(str, half))}]")).value == 1
    assert iou(read_box(str(list(whole))), read_box(str(list(half)))) == 0.5  # and no more, where more is asked


@given(st.lists(st.integers(0, 99), min_size=4, max_size=4))
def test_reading_what_was_written(corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = read_box(box_text((x1 / 100 + 0.001, y1 / 100 + 0.001, x2 / 100 + 0.001, y2 / 100 + 0.001)))
    assert box == pytest.approx((x1 / 100, y1 / 100, (x2 + 1) / 100, (y2 + 1) / 100))
    assert iou(box, box) == pytest.approx(1)


ANSWERS = [("yes", "Yes."), ("yes", "No"), ("no", "No, there is none."), ("no", "yes"), ("no", "I do not know"), ("yes", "maybe")]


@pytest.mark.parametrize(
    ("rule", "accuracy", "precision", "recall", "f1", "yes"),
    [
        # said yes: 1st (right), 4th (wrong); wanted yes: 1st, 2nd, 6th. The 5th and 6th begin with neither.
        ("strict", 2 / 6, 1 / 2, 1 / 3, 2 / 5, 2 / 6),
        # "know" holds "no", so the 5th is a right no; the 6th holds no yes, so it is a no
        ("substring", 3 / 6, 1 / 2, 1 / 3, 2 / 5, 2 / 6),
    ],
)
def test_pope_by_hand(rule, accuracy, precision, recall, f1, yes):
    metric = Pope(PopeOptions(rule=rule))
    found = summarise(scored(metric, "pope", ANSWERS), {"pope": metric}).measurements["pope"]
    values = [found[group].value for group in ("all", "precision", "recall", "f1", "yes")]
    assert values == pytest.approx([accuracy, precision, recall, f1, yes])
    assert found["precision"].low < found["precision"].value < found["precision"].high
    assert not metric.applies(Sample("", [], "red", ["red", "blue"]))


def scored(metric, name, answers, groups=None, **metadata):
    """Records of answers (target, text), each about a picture of its own or about those of `groups`."""
    for number, (target, text) in enumerate(answers):
        score = metric.score(Sample("", [], target, metadata=metadata), Answer(text))
        yield {
            "id": str(number), "kind": "answer", "blind": False, "group": (groups or range(99))[number], "family": "existence",
            "domain": "objects", "options": [], "seconds": 0.0, "values": {name: score.value},
            "ratios": {name: score.ratios} if score.ratios else {},
        }  # fmt: skip


def test_mme_by_hand():
    """Four pictures with two questions each, 6 of 8 right, two pictures wholly right: 75 + 50."""
    metric = MMEPairs(None)
    answers = [
        ("yes", "Yes"),
        ("no", "No."),
        ("yes", "yes, it is"),
        ("no", "no"),
        ("yes", "Yes"),
        ("no", "yes"),
        ("yes", "It is"),
        ("no", "no"),
    ]
    found = summarise(scored(metric, "mme_pairs", answers, list("aabbccdd")), {"mme_pairs": metric}).measurements["mme_pairs"]
    assert found["existence"].value == found["all"].value == 125
    assert found["existence"].low < 125 < found["existence"].high
    assert found["existence"].unit == "points"


def test_a_branch_that_is_called_as_its_family_is_counts_once():
    metric = Pope(PopeOptions())
    plain = summarise(scored(metric, "pope", ANSWERS), {"pope": metric}).measurements["pope"]
    records = [{**record, "branches": [record["family"]]} for record in scored(metric, "pope", ANSWERS)]
    branched = summarise(records, {"pope": metric}).measurements["pope"]
    assert branched["existence"].n == plain["existence"].n == len(ANSWERS)
    assert branched["mean existence"].value == plain["existence"].value


def test_only_the_first_four_characters_count_for_mme():
    metric = MMEPairs(None)
    assert metric.score(Sample("", [], "yes"), Answer("Oh, yes")).value == 0
    assert metric.score(Sample("", [], "no"), Answer("not at all")).value == 1


FACTS = ("a small red plain circle at the top left", "a large blue dotted star at the top right")


def test_chair_by_hand():
    """Four mentions, one of them made up, in two captions; of the two things there, 2 and 1 are mentioned: 3 of 4."""
    metric = Chair(ChairOptions())
    captions = [
        ("", "a small red plain circle at the top left; a small blue dotted star at the top right"),
        ("", "A red circle. Two green hearts and the top left"),
    ]
    found = summarise(scored(metric, "chair", captions, facts=FACTS), {"chair": metric}).measurements["chair"]
    assert found["all"].value == 1 / 2
    assert found["instances"].value == 1 / 4
    assert found["recall"].value == 3 / 4
    assert metric.score(Sample("", [], "", metadata={"facts": FACTS}), Answer(captions[1][1])).extracted == "green heart"
    assert not metric.applies(Sample("", [], "red", ["red", "blue"]))
    assert metric.better == "lower"


def test_chair_with_classes_of_things(tmp_path):
    """Synonyms and plurals count as their class, the longest words win, and references say what is there too."""
    (tmp_path / "things.txt").write_text("person, man, woman\ndog, puppy\nhot dog\ncup, mug\n")
    metric = Chair(ChairOptions(synonyms=tmp_path / "things.txt"))
    sample = Sample("", [], "A man eats.", metadata={"objects": ["hot dog"], "references": ["somebody with a mug"]})
    score = metric.score(sample, Answer("A woman eats a hot dog beside puppies and a cup."))
    assert score.extracted == "dog"
    assert score.ratios == {"instances": (1.0, 4.0), "recall": (3.0, 3.0)}
    with pytest.raises(DataError, match="no such list of synonyms"):
        Chair(ChairOptions(synonyms=tmp_path / "none.txt")).score(sample, Answer("a dog"))


def test_ratios_of_sums_and_their_intervals():
    """2 + 0 + 1 of 2 + 1 + 3 is a half; residuals 1, -.5, -.5 over the mean 2 are .5, -.25, -.25. t(2) = 4.303."""
    found = ratio([2, 0, 1], [2, 1, 3], ["a", "b", "c"])
    error = (((0.5**2 + 0.25**2 + 0.25**2) / 2) / 3) ** 0.5
    assert found.value == 0.5
    assert found.high - found.value == pytest.approx(4.303 * error, rel=1e-3)
    assert ratio([0, 0], [0, 0], ["a", "b"]).n == 0
