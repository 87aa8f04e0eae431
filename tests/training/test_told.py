"""Scenes told in words: text-only data in a mixture, as the language model would have read it, and questions about them."""

from __future__ import annotations

import math

import pytest
import torch

from argus.core.registry import build
from argus.core.sample import ImagePart, Message, TextPart, in_words
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import Row
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.base import build_scenario
from argus.model.load import load
from argus.training.data import StageData
from argus.training.options import DataOptions
from argus.training.rows import IGNORE
from tests.model.tiny import tiny
from tests.runner.tiny import tiny_model

OBJECTS = DataOptions(world={"objects": 1.0}, domains={"objects": {"max_objects": 2}}, size=32, questions=3)


def collated(count: int, **options: object):
    objective = build("objective", "sft", options)
    objective.bind(*(made := tiny()))
    items = [StageData(OBJECTS, count)[index] for index in range(count)]
    return objective, made[1], items, objective.collate(items)


def test_none_told_is_the_data_as_it_was() -> None:
    plain, none = collated(6)[3], collated(6, told=0.0)[3]
    assert plain.keys() == none.keys()
    assert all(torch.equal(plain[name], none[name]) for name in plain)


@pytest.mark.parametrize("turns", ["independent", "conversation"])
def test_a_told_scene_is_its_description_and_questions(turns: str) -> None:
    """Each question that is asked alone stands behind the description; in a dialogue the first one does."""
    _, processor, items, batch = collated(1, told=1.0, turns=turns)
    drawing, domain = items[0]
    assert "pixel_values" not in batch
    text = processor.tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True)
    words = domain.describe(drawing.scene)
    assert text.count(words) == (3 if turns == "independent" else 1)
    assert text.startswith(f"User: {words}\n{drawing.questions[0].text}\nAssistant: {drawing.questions[0].answer}")
    taught = processor.tokenizer.decode(batch["labels"][batch["labels"] != IGNORE])
    assert all(question.answer in taught for question in drawing.questions)


def test_the_share_is_kept_and_the_rest_is_shown() -> None:
    objective, processor, items, batch = collated(200, told=0.25)
    told = [not objective.drawn_or_told(*item).images() for item in items]
    assert 30 < sum(told) < 70
    assert len(batch["pixel_values"]) == 200 - sum(told)
    assert int((batch["input_ids"] == processor.image_token_id).sum()) == 16 * (200 - sum(told))


def test_a_mixed_batch_learns() -> None:
    objective, _, _, batch = collated(8, told=0.5)
    model, _ = tiny()
    loss, _ = objective.loss(model, batch)
    loss.backward()
    assert float(model.model.language_model.layers[0].self_attn.q_proj.weight.grad.abs().sum()) > 0


def test_the_same_questions_are_asked_without_a_picture() -> None:
    given = {"size": 32, "families": ["colour", "count"]}
    shown, told = (
        list(build_scenario(EvaluationOptions(scenario={"world/objects": {**given, "told": how}})).groups(8, 0))
        for how in (False, True)
    )
    for one, other in zip(shown[0].samples, told[0].samples, strict=True):
        assert (one.id, one.target, one.options) == (other.id, other.target, other.options)
        assert one.images()
        assert not other.images()
        assert other.messages[0].text().endswith(f"\n{one.messages[0].text()}")
    turn = Message("user", [ImagePart(b""), TextPart("What is it?")])
    assert in_words(turn, "A circle.").text() == "A circle.\nWhat is it?"


def test_perplexity_is_of_the_right_answer() -> None:
    metric = build("metric", "perplexity")
    rows = [
        Row({"log_probability": math.log(p)}, ["all", family], picture)
        for p, family, picture in ((0.5, "colour", "a"), (0.125, "count", "b"), (0.5, "count", "c"))
    ]
    found = metric.over_all(rows)
    assert found["all"].value == pytest.approx((2 * 8 * 2) ** (1 / 3))
    assert found["count"].value == pytest.approx(4.0)
    assert found["all"].low < found["all"].value < found["all"].high
    [sample] = next(build_scenario(EvaluationOptions(scenario={"world/objects": {"families": ["colour"]}})).groups(1, 0)).samples
    scores = [-float(n) for n in range(len(sample.options))]
    right = sample.options.index(sample.target)
    assert metric.score(sample, Answer("", scores)).notes == {"log_probability": -float(right)}


def test_perplexity_of_a_model_is_that_of_its_scores() -> None:
    model, processor = load(str(tiny_model()))
    options = EvaluationOptions(
        scenario={"world/objects": {"size": 32, "told": True, "families": ["colour"]}},
        inferencer={"likelihood": {"normalise": "mean"}},
        metrics=["perplexity", "accuracy"],
        samples=6,
    )
    records = MemoryRecords()
    result = evaluate(model, processor, options, run_part=records, progress=False)
    logs = [r["option_scores"][r["options"].index(r["target"])] for r in records.records() if r["kind"] == "answer"]
    assert result.measurements["perplexity"]["all"].value == pytest.approx(math.exp(-sum(logs) / 6))
    assert result.measurements["perplexity"]["all"].n == 6
