"""A number of visual tokens per request: prompts, generation, training rows, evaluation, and what cannot be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import argus
from argus.core.errors import ModelError, UnsupportedError
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.model.load import load
from argus.training.data import StageData
from argus.training.options import DataOptions
from argus.training.stage import train_stage
from tests.model.connectors.composed import ENCODER, composed, picture
from tests.training.test_stage import DATA, options

MQT = {"mqt": {"max_tokens": 16, "heads": 2}}
HOW = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
TEXT = "User: <image>\nWhat colour is the star?\nAssistant:"


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    return composed(monkeypatch, MQT)


def test_a_request_says_how_many_tokens_it_wants(both: tuple[Any, Any]) -> None:
    """The prompt holds as many, the language model sees as many, and they are the first of those of a larger request."""
    model, processor = both
    whole = model.get_image_features(processor(images=[picture()], text=TEXT, return_tensors="pt")["pixel_values"])
    lengths, cached = [], []
    for count in (1, 5, 16, None):
        inputs = processor(images=[picture()], text=TEXT, return_tensors="pt", visual_tokens=count)
        lengths.append(inputs["input_ids"].shape[1])
        output = model(**inputs, use_cache=True)
        cached.append(output.past_key_values.get_seq_length())
        torch.testing.assert_close(output.image_hidden_states, whole[:, : count or 16], rtol=0, atol=1e-5)
        assert model.model.token_map.visual.sum() == processor.image_token_count(visual_tokens=count) == (count or 16)
    assert [n - lengths[0] for n in lengths] == [0, 4, 15, 15]
    assert cached == lengths


def test_generation_with_few_tokens(both: tuple[Any, Any]) -> None:
    """In batches, with beams, with a chunked prefill and from features computed before, without loading anything again."""
    model, processor = both
    inputs = processor(images=[picture(1), picture(2)], text=[TEXT, TEXT], return_tensors="pt", padding=True, visual_tokens=3)
    answers = model.generate(**inputs, **HOW)
    one = processor(images=[picture(2)], text=TEXT, return_tensors="pt", visual_tokens=3)
    assert model.generate(**one, **HOW)[0].tolist() == answers[1].tolist()
    assert model.generate(**one, **HOW, prefill_chunk_size=4)[0].tolist() == answers[1].tolist()
    assert model.generate(**one, **HOW, num_beams=2).shape == (1, answers.shape[1])
    pixels = inputs.pop("pixel_values")
    seen = model.get_image_features(pixels, visual_tokens=3)
    assert torch.equal(model.generate(**inputs, image_features=seen, **HOW), answers)


@pytest.mark.parametrize("count", [0, 17, -1, 2.0, True, "4"])
def test_what_the_connector_cannot_give_is_refused(count: Any, both: tuple[Any, Any]) -> None:
    model, processor = both
    with pytest.raises(UnsupportedError, match="gives 1 to 16 visual tokens per tile"):
        processor(images=[picture()], text=TEXT, return_tensors="pt", visual_tokens=count)
    with pytest.raises(UnsupportedError, match="gives 1 to 16 visual tokens per tile"):
        model.get_image_features(torch.zeros(1, 3, 32, 32), visual_tokens=count)


def test_other_numbers_than_the_prompt_holds_are_refused(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = processor(images=[picture()], text=TEXT, return_tensors="pt", visual_tokens=3)
    with pytest.raises(ModelError, match="the prompts hold 3 image tokens, but the pictures give 5"):
        model(**{**inputs, "visual_tokens": 5})


def test_fixed_connectors_refuse_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = composed(monkeypatch, "mlp")
    with pytest.raises(UnsupportedError, match="fixed number of visual tokens"):
        processor(images=[picture()], text=TEXT, visual_tokens=4)
    with pytest.raises(UnsupportedError, match="fixed number of visual tokens"):
        build("objective", "sft", {"visual_tokens": "even"}).bind(model, processor)
    asked = EvaluationOptions(scenario="world/objects", samples=2, visual_tokens=4)
    with pytest.raises(UnsupportedError, match="fixed number of visual tokens"):
        evaluate(model, processor, asked)


def test_tiles_have_as_many_tokens_each(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = composed(monkeypatch, MQT, {"internvl": {"max_tiles": 4}})
    inputs = processor(images=[picture(0, 64, 32)], text=TEXT, return_tensors="pt", visual_tokens=5)
    assert inputs["pixel_values"].shape[0] == 3
    assert int((inputs["input_ids"] == 3).sum()) == 15
    seen = model(**inputs).image_hidden_states
    assert torch.cat(list(seen)).shape == (15, 48)
    assert torch.equal(processor.token_map(inputs).tile, model.model.token_map.tile)


def test_views_that_read_rows_need_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for view in ("anyres", "4khd"):
        with pytest.raises(UnsupportedError, match="have no places in the picture"):
            composed(monkeypatch, MQT, view)


def test_s2_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = composed(monkeypatch, MQT, encoder={"s2": {"encoder": ENCODER, "scales": [1, 2]}})
    inputs = processor(images=[picture(0, 64, 64)], text=TEXT, return_tensors="pt", visual_tokens=7)
    assert model(**inputs).image_hidden_states.shape == (1, 7, 48)


def test_techniques_see_the_tokens_that_were_asked_for(both: tuple[Any, Any]) -> None:
    """Of 8 tokens half are dropped; the encoder's attention on patches says nothing about queries, so it is refused."""
    model, processor = both
    inputs = processor(images=[picture()], text=TEXT, return_tensors="pt", visual_tokens=8)
    plain = model.generate(**inputs, **HOW)
    with argus.attach(model, "random", keep=1.0):
        assert torch.equal(model.generate(**inputs, **HOW), plain)
    with argus.attach(model, "random", keep=0.5) as attached:
        model.generate(**inputs, **HOW)
        assert [(k.grid, k.total, len(k.indices)) for k in attached.kept] == [((1, 8), 8, 4)]
    with argus.attach(model, "fastervlm", keep=0.5), pytest.raises(UnsupportedError, match="says nothing about single tokens"):
        model.generate(**inputs, **HOW)


def test_a_saved_model_can_still_choose(both: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = both
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, stored = load(str(tmp_path))
    inputs = stored(images=[picture()], text=TEXT, return_tensors="pt", visual_tokens=6)
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_training_draws_one_number_per_batch(both: tuple[Any, Any], tmp_path: Path) -> None:
    """Even numbers of the whole range, the same when a stage is resumed; rows, loss and log agree with them."""
    model, processor = both
    data = StageData(DataOptions.model_validate(DATA), 200)
    objective = build("objective", "sft", {"visual_tokens": "even"})
    objective.bind(model, processor)
    drawn = [objective.collate([data[i], data[i + 1]])["visual_tokens"] for i in range(0, 100, 2)]
    assert {*drawn} == {2, 4, 6, 8, 10, 12, 14, 16}
    batch = objective.collate([data[4], data[5]])
    assert batch["visual_tokens"] == drawn[2]
    assert (batch["input_ids"] == 3).sum(1).tolist() == [drawn[2]] * 2
    result = train_stage(model, processor, options(objective={"sft": {"visual_tokens": [2, 16]}}, log_every=1), tmp_path)
    assert {entry["visual_tokens"] for entry in result.log} == {2, 16}


def test_evaluation_asks_with_as_many(both: tuple[Any, Any]) -> None:
    """Shared prefixes or not, the language model sees the number that was asked for."""
    model, processor = both
    for count in (4, None):
        asked = EvaluationOptions(
            scenario="world/objects", samples=6, cost_samples=1, metrics=["accuracy", "visual_tokens"], visual_tokens=count
        )
        assert evaluate(model, processor, asked).measurements["visual_tokens"]["all"].value == (count or 16)
