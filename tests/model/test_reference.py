"""The shipped models load from safetensors, are small, and do what their recorded scores say."""

import json
from pathlib import Path

import pytest

from argus.core.reference import reference_models
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.model.load import load

MODELS = reference_models()


def test_all_three_are_shipped_and_small() -> None:
    assert set(MODELS) == {"argus/tiny-clip", "argus/tiny-lm", "argus/tiny-vlm"}
    weights = [file for folder in MODELS.values() for file in Path(folder).glob("*.safetensors")]
    assert sum(file.stat().st_size for file in weights) < 60e6
    assert not [file for folder in MODELS.values() for file in Path(folder).glob("*.bin")]


@pytest.mark.parametrize("name", MODELS)
def test_each_records_where_its_scores_come_from(name: str) -> None:
    scores = json.loads((MODELS[name] / "scores.json").read_text())
    assert set(scores["measured"]) == {"command", "commit", "machine"}
    assert len(scores) > 1


def test_tiny_vlm_sees_what_its_scores_say() -> None:
    model, processor = load("argus/tiny-vlm", device="cpu")
    recorded = json.loads((MODELS["argus/tiny-vlm"] / "scores.json").read_text())["objects"]
    result = evaluate(model, processor, EvaluationOptions(scenario="world/objects", samples=200), progress=False)
    # 200 questions on 25 pictures: three standard errors of a share near one half, widened for clustering, are 0.12.
    assert result.measurements["accuracy"]["all"].value == pytest.approx(recorded["all"]["value"], abs=0.12)
    assert recorded["all"]["low"] > recorded["blind"]["high"]


def test_tiny_clip_names_colours_on_unseen_scenes() -> None:
    import torch

    from argus.model.image_processor import normalise

    model, _ = load("argus/tiny-clip", device="cpu")
    domain = build("domain", "objects")
    right = shown = 0
    for index in range(20):
        drawing = domain.draw("test", index, 96, 0)
        truth = torch.from_numpy(domain.dense(drawing.scene, 12)["colour"]).flatten()
        with torch.inference_mode():
            pixels = normalise(drawing.pixels[None], model.config.vision_config.image_mean, model.config.vision_config.image_std)
            named = model(pixels).dense_logits["colour"][0].argmax(-1)
        right += int((named[truth > 0] == truth[truth > 0]).sum())
        shown += int((truth > 0).sum())
    assert right / shown > 0.95
