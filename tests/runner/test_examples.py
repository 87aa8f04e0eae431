"""Which questions a report shows, and what it says was left of their pictures."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.inferencers.base import Question
from argus.methods.attach import attach
from argus.model.load import load
from argus.report.seen import seen
from argus.runner.examples import choose
from tests.runner.tiny import tiny_model


def question(id_: str, family: str = "colour") -> Question:
    picture = Image.effect_noise((32, 32), 90).convert("RGB")
    return Question(
        id_, Sample(id_, [Message("user", [ImagePart(picture), TextPart("Colour?")])], metadata={"family": family}), [picture]
    )


def test_questions_on_which_variants_differ_come_first_and_families_take_turns() -> None:
    asked = [question(*q) for q in [("a", "colour"), ("b", "colour"), ("c", "count"), ("d", "colour"), ("e", "colour")]]
    right = {"full": "abcd", "pruned": "acd"}  # b: only full is right; e: none is
    answers = {v: {q: {"correct": float(q in ids)} for q in "abcde"} for v, ids in right.items()}
    # b tells most; then c, of a family not shown yet; then in their order
    assert [q.sample.id for q in choose(asked, answers, 4)] == ["b", "c", "a", "d"]


def test_a_question_that_some_variant_could_not_answer_is_no_example() -> None:
    asked = [question("a"), question("b")]
    answers: dict[str, dict[str, Any]] = {
        "full": {"a": {"correct": 1.0}, "b": {"correct": 1.0}},
        "pruned": {"b": {"correct": 0.0}},
    }
    assert [q.sample.id for q in choose(asked, answers, 4)] == ["b"]


def test_what_is_left_is_what_the_last_technique_let_through() -> None:
    model, processor = load(str(tiny_model()), device="cpu")
    asked = question("a")
    with attach(model, "random", keep=0.5) as first:
        half = seen(model, processor, asked, [first])
        with attach(model, "fastv", keep=0.5, layer=1) as second:
            quarter = seen(model, processor, asked, [first, second])
    assert half is not None
    assert quarter is not None
    assert (half.kept, half.total, half.grid) == (8, 16, (4, 4))
    assert half.indices == sorted(first.kept[0].indices.tolist())
    assert quarter.kept == len(quarter.indices) == 4
    assert set(quarter.indices) < set(half.indices)


def test_without_techniques_or_pictures_there_is_nothing_to_show() -> None:
    model, processor = load(str(tiny_model()), device="cpu")
    assert seen(model, processor, question("a"), []) is None
    blind = Question("b", Sample("b", [Message("user", [TextPart("Colour?")])]), [])
    with attach(model, "random", keep=0.5) as attachment:
        assert seen(model, processor, blind, [attachment]) is None


@pytest.mark.parametrize("keep", [0.0, 1.0])
def test_nothing_and_everything_can_be_left(keep: float) -> None:
    model, processor = load(str(tiny_model()), device="cpu")
    with attach(model, "fastervlm", keep=keep) as attachment:
        left = seen(model, processor, question("a"), [attachment])
    assert left is not None
    assert left.indices == list(range(round(16 * keep)))


def test_a_technique_that_drops_no_tokens_has_nothing_to_show() -> None:
    model, processor = load(str(tiny_model()))
    with attach(model, "yopo", window=3) as attachment:
        assert seen(model, processor, question("a"), [attachment]) is None
