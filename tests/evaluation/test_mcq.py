"""What is read out of answers in ChEF's scenarios, on answers worked out by hand."""

from __future__ import annotations

import math

import pytest

from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.caption_overlap import bleu, rouge_l
from argus.evaluation.metrics.mcq import extracted
from argus.evaluation.results import summarise

CHOICES = ["cat", "dog", "red bird", "fish"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A", "A"),
        ("A dog", "A"),
        ("A small dog", "B"),
        ("The dog. It is A", "B"),
        ("I think the answer is B", "B"),
        ("Option C is right and D.", "D"),
        ("cat and dog", None),
        ("### B", None),
        ("", None),
        # and of the other rules
        ("Human: which?\nAssistant: (C) red bird", "C"),
        ("The answer is B: dog", "B"),
        ("It is :D) as can be seen", "D"),
        ("red bird", "C"),
        ("I see a RED BIRD there", "C"),
    ],
)
def test_extraction(text: str, letter: str | None) -> None:
    assert extracted(text, CHOICES) == letter


def summary(name: str, rows: list[tuple[Sample, str]], **options):
    """What a metric measures on samples and answers."""
    metric = build("metric", name, options)
    records = []
    for number, (sample, text) in enumerate(rows):
        score, known = metric.score(sample, Answer(text)), sample.metadata
        records.append(
            {
                "id": str(number), "kind": "answer", "blind": False, "group": known.get("picture", str(number)), "domain": "d",
                "family": "f", "branches": known.get("branches", []), "item": known.get("item"), "options": sample.options,
                "values": {} if score.value is None else {name: score.value}, "ratios": {name: score.ratios},
                "notes": {name: score.notes}, "seconds": 0.0,
            }
        )  # fmt: skip
    return {group: m.value for group, m in summarise(records, {name: metric}).measurements[name].items()}


def turned(index: int, correct: bool) -> tuple[Sample, str]:
    """A row of MMBench: the unrotated one, or a turn of it."""
    item = str(index % 1_000_000)
    known = {"item": item, "picture": item, "branches": ["turned" if index >= 1_000_000 else "vanilla"]}
    return Sample(str(index), [], "cat", CHOICES, known), "A" if correct else "B"


def test_vanilla_and_circular_accuracy() -> None:
    rows = [turned(1, True), turned(1_000_001, True), turned(2, True), turned(1_000_002, False), turned(3, False)]
    found = summary("mcq", rows)
    assert found["vanilla"] == pytest.approx(2 / 3)  # 66.67 %
    assert found["item"] == pytest.approx(1 / 3)  # 33.33 %


def test_options_that_are_letters_are_read_by_their_texts_too() -> None:
    sample = Sample("a", [], "(B", ["(A", "(B", "(C", "(D"], {"choices": CHOICES})
    mcq = build("metric", "mcq")
    assert [mcq.score(sample, Answer(text)).value for text in ("(B", "B", "the dog", "(C) red bird")] == [1, 1, 1, 0]


def test_match_ratio_counts_what_could_be_read() -> None:
    rows = [(Sample(str(n), [], "cat", CHOICES), text) for n, text in enumerate(("A", "B", "cat and dog", "no idea"))]
    found = summary("mcq", rows)
    assert (found["all"], found["match_ratio"]) == (0.25, 0.5)


def test_counting() -> None:
    said = (("There are twelve.", 12), ("12", 12), ("around 7 birds", 9), ("twelve", 10), ("100", 3), ("none", 5))
    found = summary("counting", [(Sample(str(n), [], str(right)), text) for n, (text, right) in enumerate(said)])
    assert found["all"] == 4.0  # (12 + 0 + 2 + 2 + 3 + 5) / 6
    assert found["accuracy"] == pytest.approx(1 / 6)


def test_a_synonym_is_right_where_the_class_alone_is_not() -> None:
    sample = Sample("a", [], "automobile", metadata={"answers": ["car"]})
    assert build("metric", "word_match").score(sample, Answer("It is a red car.")).value == 1
    assert build("metric", "class_match").score(sample, Answer("It is a red car.")).value == 0


def turn(level: int, right: bool, item: str = "x") -> tuple[Sample, str]:
    known = {"level": level, "levels": 3, "item": item, "picture": item}
    return Sample(f"{item}/{level}", [], "owl", ["owl", "duck"], known), "owl" if right else "duck"


def test_the_deepest_right_level_over_the_length_of_the_chain() -> None:
    """x: levels 1 and 3 are right, y: level 1 alone."""
    rows = [turn(1, True), turn(2, False), turn(3, True), turn(1, True, "y"), turn(2, False, "y"), turn(3, False, "y")]
    found = summary("chain", rows)
    assert found["all"] == pytest.approx((3 / 3 + 1 / 3) / 2)
    assert (found["level 1"], found["level 2"], found["level 3"]) == (1.0, 0.0, 0.5)


def test_a_written_answer_may_name_any_level() -> None:
    sample = Sample("a", [], "owl", metadata={"chain": ["animal", "bird", "owl"]})
    said = ("a bird on a branch", "an animal, an owl", "a cow")
    assert summary("chain", [(sample, text) for text in said])["all"] == pytest.approx((2 / 3 + 1 + 0) / 3)


GOLD = [(0.0, 0.0, 0.5, 0.5)]
BOXES = [(0.0, 0.0, 0.5, 0.5), (0.6, 0.6, 0.9, 0.9)]
WRITTEN = ["[0.0, 0.0, 0.5, 0.5]", "[0.6, 0.6, 0.9, 0.9]"]


def seen(name: str, said: str) -> tuple[Sample, str]:
    known = {"class": name, "picture": "p"}
    return Sample(f"p/{name}", [], f"a {name}", [f"a {name}", "a boat"], known), said


def boxed(name: str, said: str, options=WRITTEN) -> tuple[Sample, str]:
    known = {"class": name, "picture": "p", "gold": GOLD, "boxes": BOXES}
    return Sample(f"p/{name}/box", [], WRITTEN[0], options, known), said


def test_boxes_count_only_where_the_class_was_right() -> None:
    """Three classes, two rightly named; of their boxes one hits. The third class's box hits and counts nowhere."""
    classes = [seen("cat", "a cat"), seen("dog", "a dog"), seen("bus", "a boat")]
    boxes = [boxed("cat", WRITTEN[0]), boxed("dog", WRITTEN[1]), boxed("bus", WRITTEN[0])]
    found = summary("detection", classes + boxes)
    assert found["class"] == pytest.approx(2 / 3)
    assert found["all"] == pytest.approx(1 / 2)  # mAP
    assert found["mAR"] == pytest.approx(1 / 3)


def test_written_boxes_are_read_too_and_half_is_not_more_than_half() -> None:
    said = ("It is at [0.0, 0.0, 0.5, 0.5].", "[0.0, 0.0, 0.5, 0.25]", "nowhere")  # IoU 1, exactly 0.5, none
    detection = build("metric", "detection")
    sample, _ = boxed("cat", "")
    assert [detection.score(sample, Answer(text)).notes["right"] for text in said] == [1, 0, 0]


def test_bleu_and_rouge_by_hand() -> None:
    said, right = "a dog runs on grass".split(), "a dog sits on grass".split()
    # 4 of 5 words; of 4, 3, 2 longer ones 2, 0, 0, with 1 added on both sides: 3/5, 1/4, 1/3
    assert bleu(said, right) == pytest.approx((4 / 5 * 3 / 5 * 1 / 4 * 1 / 3) ** 0.25)
    assert bleu(right, right) == pytest.approx(1)
    assert bleu("a dog".split(), "a dog sits here".split()) == pytest.approx(math.exp(1 - 4 / 2))  # too short
    assert rouge_l(said, right) == pytest.approx(4 / 5)  # a dog on grass: precision and recall are equal
    assert (bleu([], right), rouge_l([], right)) == (0, 0)


def test_the_best_reference_counts() -> None:
    sample = Sample("a", [], "two cats", metadata={"answers": ["a dog runs on grass"]})
    for name in ("bleu", "rouge_l"):
        assert build("metric", name).score(sample, Answer("A dog runs on grass.")).value == pytest.approx(1)
