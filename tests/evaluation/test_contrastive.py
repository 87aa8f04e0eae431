"""Dual encoders asked like other models: zero-shot weights, relations, and one path for our own and transformers' towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.contrastive import ContrastiveModel
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Question
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.relation import by_type, caption_choice, representative, winoground
from argus.model.load import load
from tests.training.test_stage import dual

from .conftest import picture


def question(options: list[str], group: str = "g", seed: int = 0) -> Question:
    sample = Sample(
        "a", [Message("user", [ImagePart(picture(seed)), TextPart("Which?")])], options[0], options, {"family": "colour"}
    )
    return Question(group, sample, [picture(seed)])


@pytest.fixture(scope="module")
def own() -> ContrastiveModel:
    model, words = dual()
    return ContrastiveModel(model.eval(), words)


def test_weights_are_normalised_means_of_normalised_texts(own: ContrastiveModel) -> None:
    templates = ["a {option} star", "{option}", "the {option} ring"]
    asked = question(["red", "blue", "green"])
    asked.sample = build("instruction", "statement", {"templates": templates}).apply(asked.sample)
    (found,) = own.score([asked], False)
    pixels = own.images(images=[picture(0)])["pixel_values"]
    with torch.no_grad():
        seen = own.model(pixels).image_embeds[0]
        for option, score in zip(asked.sample.options, found, strict=True):
            vectors = []
            for template in templates:
                ids = own.tokenizer(template.replace("{option}", option), return_tensors="pt")
                vectors.append(own.model.encode_text(ids.input_ids, ids.attention_mask)[0])
            mean = torch.stack(vectors).mean(0)
            assert score == pytest.approx(float(own.scale * (mean / mean.norm()) @ seen), abs=1e-4)


def test_many_questions_at_once_equal_one_at_a_time(own: ContrastiveModel) -> None:
    asked = [
        question(["red", "a large blue star"], "g"),
        question(["blue", "green", "red"], "g"),
        question(["red", "blue"], "h", 1),
    ]
    together = own.score(asked, False)
    fresh = ContrastiveModel(own.model, own.tokenizer)
    for one, scores in zip(asked, together, strict=True):
        assert fresh.score([one], False)[0] == pytest.approx(scores, abs=1e-4)


def test_the_choice_does_not_depend_on_the_scale_but_confidence_does(own: ContrastiveModel) -> None:
    (before,) = own.score([question(["red", "blue", "green"])], False)
    loud = ContrastiveModel(own.model, own.tokenizer)
    loud.scale = own.scale * 3
    (after,) = loud.score([question(["red", "blue", "green"])], False)
    assert np.argmax(before) == np.argmax(after)
    assert np.ptp(after) == pytest.approx(3 * np.ptp(before), rel=1e-4)


def test_it_cannot_write_and_needs_one_picture(own: ContrastiveModel) -> None:
    with pytest.raises(UnsupportedError, match="cannot write"):
        own.generate([question(["red", "blue"])], 4)
    blind = question(["red", "blue"])
    blind.images = []
    with pytest.raises(UnsupportedError, match="one picture"):
        own.score([blind], False)


def test_the_engine_asks_it_and_refuses_costs() -> None:
    model, words = dual()
    scenario: dict[str, Any] = {"world/objects": {"size": 32, "families": ["colour"], "questions": 2}}
    result = evaluate(model, words, EvaluationOptions(scenario=scenario, instruction="statement", samples=8), progress=False)
    assert result.answered == 8
    costly = EvaluationOptions(scenario=scenario, samples=8, metrics=["accuracy", "ttft_ms"])
    with pytest.raises(UnsupportedError, match="ttft_ms"):
        evaluate(model, words, costly, progress=False)


def test_a_clip_of_transformers_loads_and_scores(tmp_path: Path) -> None:
    words: PreTrainedTokenizerFast = dual()[1]
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": len(words),
    }
    vision = {**text, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(
        text_config={**text, "eos_token_id": words.eos_token_id, "max_position_embeddings": 32},
        vision_config=vision,
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path)
    CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32), words).save_pretrained(tmp_path)
    model, processor = load(str(tmp_path))
    asked = question(["red", "blue star"])
    (found,) = ContrastiveModel(model, processor).score([asked], False)
    inputs = processor(text=["red", "blue star"], images=[picture(0)], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**{k: v for k, v in inputs.items() if k != "token_type_ids"}).logits_per_image[0]
    assert found == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "text", "image"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], True, True),
        ([[0.6, 0.5], [0.7, 0.8]], True, False),
        ([[0.5, 0.5], [0.5, 0.5]], False, False),
    ],
)
def test_winoground(scores: list[list[float]], text: bool, image: bool) -> None:
    found = winoground([scores])
    assert (found.text[0], found.image[0], found.group[0]) == (text, image, text and image)


def test_chance_of_random_scores() -> None:
    rng = np.random.default_rng(0)
    assert caption_choice(rng.random((2000, 2))).mean() == pytest.approx(0.5, abs=0.03)
    assert caption_choice(rng.random((2000, 5))).mean() == pytest.approx(0.2, abs=0.03)
    found = winoground(rng.random((2000, 2, 2)))
    assert found.text.mean() == pytest.approx(1 / 4, abs=0.03)
    assert found.image.mean() == pytest.approx(1 / 4, abs=0.03)
    assert found.group.mean() == pytest.approx(1 / 6, abs=0.03)


def test_equal_scores_choose_nothing() -> None:
    assert not caption_choice([[0.5, 0.5, 0.1]]).any()


def test_types_are_means_of_benchmarks_not_of_items() -> None:
    assert by_type({"a": 0.2, "b": 0.4, "c": 0.9}, {"a": "x", "b": "x", "c": "y"}) == pytest.approx({"x": 0.3, "y": 0.9})


@given(st.integers(3, 6), st.integers(0, 100))
def test_the_representative_correlates_best(benchmarks: int, seed: int) -> None:
    table = np.random.default_rng(seed).random((12, benchmarks))
    names = [f"b{i}" for i in range(benchmarks)]
    mean = {
        a: np.mean([np.corrcoef(table[:, i], table[:, j])[0, 1] for j in range(benchmarks) if j != i])
        for i, a in enumerate(names)
    }
    name, value = representative(table, names)
    assert mean[name] == pytest.approx(max(mean.values()))
    assert value == pytest.approx(mean[name])
    assert representative(table[:, :1], ["only"]) == ("only", 1.0)
