"""What a technique finds on data, it finds once, on questions of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import argus
from argus.core.errors import RecipeError, UnsupportedError
from argus.methods.learned import save_parts
from argus.methods.reduction.dyvte import DyVTE, DyVTEOptions
from argus.model.anatomy import anatomy
from argus.model.load import load
from argus.runner.calibrate import calibrated
from argus.runner.plan import plan
from argus.runner.run import run

QUESTIONS = {"scenario": {"world/objects": {"split": "validation", "size": 32, "families": ["colour"]}}, "samples": 8}
SEARCH = {"first": 1, "calibrate": {**QUESTIONS, "tokens": 16}}


def test_a_schedule_is_searched_and_held(model: Path) -> None:
    """Within the tolerance on its own questions; what else was asked for stays; the same again."""
    loaded, processor = load(str(model))
    found = calibrated(loaded, processor, "gsearch", SEARCH)
    assert found == calibrated(loaded, processor, "gsearch", SEARCH)
    assert set(found) == {"first", "schedule"}
    assert found["schedule"][0] == 1.0
    assert 0 <= found["schedule"][1] * 16 == int(found["schedule"][1] * 16) <= 16
    with argus.attach(loaded, "gsearch", **found) as attachment:
        assert attachment.options.model_dump()["schedule"] == tuple(found["schedule"])


def test_a_lot_exits_where_routers_do_on_average(model: Path, tmp_path: Path) -> None:
    """Routers of zeros keep on a draw: nobody exits before the last layer. Below zero, all exit after the first."""
    loaded, processor = load(str(model))
    parts = DyVTE(DyVTEOptions(hidden=8)).make(anatomy(loaded))
    for weight in parts.parameters():
        weight.data.zero_()
    save_parts(parts, tmp_path / "dyvte.safetensors")
    lot = {"policy": "random", "hidden": 8, "weights": str(tmp_path / "dyvte.safetensors"), "calibrate": QUESTIONS}
    for threshold, layer in ((0.0, len(anatomy(loaded).layers) - 1), (-1.0, 0)):
        found = calibrated(loaded, processor, "dyvte", {**lot, "threshold": threshold})
        assert found["layer"] == layer
        with argus.attach(loaded, "dyvte", **found) as attachment:
            assert not attachment.depends_on_question


def test_nothing_to_find(model: Path) -> None:
    loaded, processor = load(str(model))
    assert calibrated(loaded, processor, "fastv", {"layer": 1}) == {"layer": 1}


def test_uncalibrated_is_refused(model: Path) -> None:
    with pytest.raises(UnsupportedError, match="calibrated before it is attached"):
        argus.attach(load(str(model))[0], "gsearch", **SEARCH)


def test_a_recipe_calibrates_by_itself(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The run folder keeps what was found; a recipe's line may hold JSON."""
    file = recipe(("fastervlm: {attach: {fastervlm: {keep: 0.25}}}", f"fastervlm: {{attach: {{gsearch: {json.dumps(SEARCH)}}}}}"))
    done = run(file, ["claims=[]"], root=tmp_path / "runs")
    found = json.loads((done.folder / "calibrated" / "fastervlm.gsearch.json").read_text())
    measured = json.loads((done.folder / "metrics.json").read_text())["measured"]
    assert measured["fastervlm.visual_tokens"] == found["schedule"][1] * 16


def test_questions_that_are_not_there_are_refused_before_anything_runs(recipe: Callable[..., Path]) -> None:
    bad = {"calibrate": {"scenario": "world/object"}}
    with pytest.raises(RecipeError, match=r"tiny.yaml:5: .*object"):
        plan(recipe(("fastervlm: {keep: 0.25}", f"gsearch: {json.dumps(bad)}")))
