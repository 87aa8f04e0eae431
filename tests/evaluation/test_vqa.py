"""VQA accuracy: the official formula, written out annotator by annotator, and its normalisation on hand cases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.vqa import agreement
from argus.evaluation.metrics.words import vqa_normalise, without_marks

WORDS = st.sampled_from(["yes", "no", "2", "red", "red.", "t shirt", "t-shirt", "none"])


def score(said: str, answers: list[str]) -> float:
    sample = Sample("a", [], answers[0], [], {"answers": answers})
    value = build("metric", "vqa_accuracy").score(sample, Answer(said)).value
    assert value is not None
    return value


def slow(said: str, answers: list[str]) -> float:
    """The official loop: for each annotator, how many of the others gave this answer."""
    known = [without_marks(a) for a in answers] if len(set(answers)) > 1 else answers
    total = 0.0
    for i in range(len(known)):
        others = [a for j, a in enumerate(known) if j != i]
        total += min(1.0, len([a for a in others if a == said]) / 3)
    return total / len(known)


@pytest.mark.parametrize(("agree", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_of_ten_people(agree: int, expected: float) -> None:
    assert score("Yes", ["yes"] * agree + [f"no {i}" for i in range(10 - agree)]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "answers", "expected"),
    [
        ("The red one.", ["red 1"] * 10, 1),  # article, number word, period
        ("two", ["2"] * 10, 1),
        ("Two", ["two"] * 10, 0),  # answers are published with digits: "two" never is the normalised "2"
        ("dont know", ["don't know"] * 10, 1),
        ("1,000", ["1000"] * 10, 1),
        ("t-shirt", ["t shirt"] * 5 + ["t-shirt"] * 5, 1),  # marks of the annotators go where they differ
        ("t-shirt", ["t-shirt"] * 10, 0),  # and stay where all say the same
        ("3.5", ["3.5"] * 10, 1),
        ("yes\n", ["yes"] * 10, 1),
        ("", ["yes"] * 10, 0),
    ],
)
def test_hand_cases(said: str, answers: list[str], expected: float) -> None:
    assert score(said, answers) == expected


@settings(max_examples=200, deadline=None)
@given(WORDS, st.lists(WORDS, min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_it_is_the_official_loop_whatever_the_order(said: str, answers: list[str], draw: object) -> None:
    said = vqa_normalise(said)
    found = agreement(said, answers)
    assert found == pytest.approx(slow(said, answers))
    assert 0 <= found <= 1
    mixed = sorted(answers)
    assert agreement(said, mixed) == pytest.approx(found)
    assert agreement(said, [*answers, said]) >= found - 1e-12 or len(set(answers)) == 1


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="aB1.,-?' \n", max_size=20))
def test_normal_forms_are_lower_case_and_have_single_blanks(text: str) -> None:
    found = vqa_normalise(text)
    assert found == found.lower().strip()
    assert "  " not in found
    assert not set(found.split()) & {"a", "an", "the"}


def test_one_answer_is_no_vote() -> None:
    metric = build("metric", "vqa_accuracy")
    assert not metric.applies(Sample("a", [], "yes", []))
    assert metric.applies(Sample("a", [], "yes", [], {"answers": ["yes", "no"]}))
