"""Word matching: the published rule with its oddities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.words import class_mean, has_word, reciprocal_rank, vqa_normalise, word_f1


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("cats", "cat", False),
        ("Not yes", "yes", True),
        ("3.5", "3", True),
        ("1,000 dollars", "1000", True),
        ("U.S.A.", "usa", True),
        ("red-blue", "red", True),
        ("", "", False),
        ("It is a red car.", "the red car", True),
        ("dont", "don't", True),
        ("three birds", "3", True),
        ("anything", "?", False),  # a gold answer of punctuation is nothing to find
    ],
)
def test_has_word(answer: str, gold: str, right: bool) -> None:
    assert has_word(answer, gold) is right


@given(st.text(max_size=30))
def test_an_answer_holds_itself(text: str) -> None:
    wanted = vqa_normalise(text)
    if wanted and wanted[0].isalnum() and wanted[-1].isalnum():
        assert has_word(text, text)


def test_reciprocal_rank() -> None:
    assert reciprocal_rank("I think blue", ["red", "blue", "green"]) == 0.5
    assert reciprocal_rank("none of them", ["red"]) == 0


def test_word_f1_counts_over_the_corpus() -> None:
    """Shared words: 12.50, total; acme. 3 of the 6 said, 3 of the 6 wanted less the article: P 3/6, R 3/5."""
    precision, recall, f1 = word_f1([("the total is 12.50", "total 12.50 USD"), ("acme acme", "acme inc")])
    assert (precision, recall, f1) == pytest.approx((0.5, 0.6, 0.54545), abs=1e-4)


def test_class_mean_differs_where_classes_do() -> None:
    rows = [("a", True), ("a", True), ("a", True), ("a", False), ("b", False)]
    assert class_mean(rows) == 0.375  # overall it is 3 of 5
    assert class_mean([("a", True), ("b", False)]) == 0.5


def test_any_of_several_answers_counts() -> None:
    sample = Sample("", [], "sofa", [], {"answers": ["couch"]})
    assert build("metric", "word_match").score(sample, Answer("A red couch")).value == 1
    assert build("metric", "word_match").score(sample, Answer("A chair")).value == 0
