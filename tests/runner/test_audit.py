"""An audit asks the same items in every way; what no picture can change stays what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from argus.core.errors import RecipeError
from argus.core.run import Run
from argus.model.load import load
from argus.runner.audit import Finding, audit, findings
from argus.runner.run import run
from tests.runner.tiny import tiny_model

SCENARIO: dict[str, Any] = {"world/objects": {"size": 32, "families": ["colour", "count"], "questions": 4}}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Finding]]:
    done, found = audit(str(tiny_model()), SCENARIO, samples=24, root=tmp_path_factory.mktemp("audit"))
    return done, {f.name: f for f in found}


def test_every_way_is_asked_about_the_same_items(audited: tuple[Run, dict[str, Finding]]) -> None:
    done, found = audited
    asked = {}
    for path in (done.folder / "records").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        asked[path.name.split(".")[0]] = {r["id"] for r in rows if r["kind"] == "answer"}
    for way in ("blind", "grey", "wrong", "letters", "reworded", "led"):
        assert asked[way] == asked["seen"]
    assert asked["seen"] < asked["circular"]
    assert found["multimodal gain"].difference.n == 24
    assert {f["name"] for f in json.loads((done.folder / "audit.json").read_text())} == set(found)


def test_the_gain_is_the_difference_of_the_scores(audited: tuple[Run, dict[str, Finding]]) -> None:
    done, found = audited
    measured = done.read_json("metrics.json")["measured"]
    gain = measured["seen.accuracy"] - measured["blind.accuracy"]
    assert found["multimodal gain"].difference.value == pytest.approx(gain)
    assert found["guessed without looking"].difference.value == pytest.approx(measured["blind.above_chance"])
    every = measured["circular.accuracy[item]"] - measured["letters.accuracy"]
    assert found["position of the options"].difference.value == pytest.approx(every)


def test_a_model_that_cannot_see_gains_nothing(tmp_path: Path) -> None:
    """With a zeroed connector all pictures look alike, so a right and a wrong picture give the same answers."""
    model, processor = load(str(tiny_model()))
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.zero_()
    model.save_pretrained(tmp_path / "blind")
    processor.save_pretrained(tmp_path / "blind")
    _, found = audit(str(tmp_path / "blind"), SCENARIO, samples=16, root=tmp_path)
    right = next(f for f in found if f.name == "right by the right picture")
    assert (right.difference.value, right.difference.wins, right.difference.losses) == (0.0, 0, 0)


def test_without_pictures_the_tower_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from argus.model.base_model import ArgusModel

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the vision tower ran")

    monkeypatch.setattr(ArgusModel, "encode_images", never)
    recipe = tmp_path / "blind.yaml"
    evaluation = {"scenario": SCENARIO, "instruction": "blind", "samples": 8}
    recipe.write_text(f"name: B\nmodel: {{from: {tiny_model()}}}\nevaluate: [{json.dumps(evaluation)}]")
    done = run(recipe, root=tmp_path / "runs")
    assert 0 <= done.read_json("metrics.json")["measured"]["full.accuracy"] <= 1


def test_another_run_is_no_audit(tmp_path: Path) -> None:
    recipe = tmp_path / "other.yaml"
    recipe.write_text(f"name: O\nmodel: {{from: {tiny_model()}}}\nevaluate: [{{scenario: {json.dumps(SCENARIO)}, samples: 4}}]")
    with pytest.raises(RecipeError, match="not an audit"):
        findings(run(recipe, root=tmp_path / "runs"))


def test_a_variant_may_be_asked_otherwise_but_not_measured_otherwise(tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(
        f"name: W\nmodel: {{from: {tiny_model()}}}\nvariants: {{a: {{ask: {{metrics: [iou]}}}}}}\n"
        f"evaluate: [{{scenario: {json.dumps(SCENARIO)}, samples: 4}}]"
    )
    with pytest.raises(RecipeError, match="not by another 'metrics'"):
        run(recipe, root=tmp_path / "runs")
