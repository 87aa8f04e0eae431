"""Word matching and its kin: the published rules with their oddities (LVLM-eHub, arXiv 2306.09265)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.words import has_word, vqa_normalise
from argus.evaluation.results import EvaluationResult, summarise


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
        ("a red", "red.", True),
    ],
)
def test_has_word(answer: str, gold: str, right: bool) -> None:
    assert has_word(answer, gold) is right


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("Golden-Retriever", "golden retriever", False),  # the hyphen goes and leaves no blank
        ("A golden retriever!", "Golden Retriever", True),
        ("three", "3", False),  # number words are VQA's alone
        ("anything", "?", False),
    ],
)
def test_letters_alone_for_classes_and_words_in_pictures(answer: str, gold: str, right: bool) -> None:
    assert has_word(answer, gold, "letters") is right
    metric = build("metric", "word_match", {"form": "letters"})
    assert metric.score(Sample("", [], gold), Answer(answer)).value == right


@given(st.text(max_size=30))
def test_an_answer_holds_itself(text: str) -> None:
    wanted = vqa_normalise(text)
    if wanted and wanted[0].isalnum() and wanted[-1].isalnum():
        assert has_word(text, text)


def test_any_of_several_answers_counts() -> None:
    sample = Sample("", [], "sofa", [], {"answers": ["couch"]})
    assert build("metric", "word_match").score(sample, Answer("A red couch")).value == 1
    assert build("metric", "word_match").score(sample, Answer("A chair")).value == 0
    assert (sample.target, sample.metadata) == ("sofa", {"answers": ["couch"]})  # gold answers are read, not changed


def measured(name: str, rows: list[tuple[str, str, list[str]]], **options: str) -> EvaluationResult:
    """What a metric finds for (answer, target, further answers), through the records of an evaluation."""
    metric = build("metric", name, options)
    records = []
    for n, (answer, target, more) in enumerate(rows):
        score = metric.score(Sample(str(n), [], target, [], {"answers": more}), Answer(answer))
        record = {"id": str(n), "kind": "answer", "blind": False, "group": str(n), "family": "set", "domain": "d", "options": []}
        records.append({**record, "seconds": 0.0, "values": {} if score.value is None else {name: score.value}})
        records[-1] |= {"ratios": {name: score.ratios}, "notes": {name: score.notes}}
        records[-1] |= {"labels": {name: score.labels}} if score.labels else {}
    return summarise(records, {name: metric})


def test_the_rank_of_the_first_candidate_that_is_found() -> None:
    found = measured("reciprocal_rank", [("I think blue", "red", ["blue", "green"]), ("none of them", "red", [])])
    assert found.value("reciprocal_rank") == (0.5 + 0) / 2


def test_words_shared_are_counted_over_the_corpus() -> None:
    """Shared: 'total' and '12.50', then 'acme': 3 of the 6 said and of the 5 wanted."""
    found = measured("word_f1", [("the total is 12.50", "total 12.50 USD", []), ("acme acme", "acme inc", [])])
    rows = [found.value("word_f1", name) for name in ("precision", "recall", "f1")]
    assert rows == pytest.approx([0.5, 0.6, 0.54545], abs=1e-5)


def test_accuracy_per_class_differs_where_classes_do() -> None:
    rows = [("a", "a", [])] * 3 + [("b", "a", []), ("a", "b", [])]
    found = measured("class_match", rows)
    assert (found.value("class_match"), found.value("class_match", "per class")) == (0.6, 0.375)
    balanced = measured("class_match", [("a", "a", []), ("b", "a", []), ("b", "b", []), ("b", "b", [])])
    assert balanced.value("class_match") == balanced.value("class_match", "per class") == 0.75


def test_a_class_may_have_to_be_the_whole_answer() -> None:
    rows = [("A cat!", "a cat", []), ("I see a cat", "a cat", [])]
    assert measured("class_match", rows, rule="exact").value("class_match") == 0.5
    assert measured("class_match", rows).value("class_match") == 1


def test_cider_d_weighs_words_by_all_references() -> None:
    """Values of the released scorer, texts split at blanks."""
    rows = [
        ("a dog runs on the grass", "a dog running on grass", ["the dog runs on the grass"]),
        ("a red car", "a red car parked on the street", ["red automobile"]),
        ("two people ride horses", "two men riding horses", ["people on horses"]),
    ]
    found = measured("cider", rows)
    assert found.value("cider") == pytest.approx((5.044730 + 2.376377 + 1.496692) / 3, abs=1e-5)
    assert found.measurements["cider"]["all"].n == 3
    shouted = [(f"{answer.upper()}!", target, more) for answer, target, more in rows]
    assert measured("cider", shouted).value("cider") == pytest.approx(found.value("cider"))
    wordy = [(f"{answer} and there is much more to see in the picture", target, more) for answer, target, more in rows]
    assert measured("cider", wordy).value("cider") < 0.5 * found.value("cider")
