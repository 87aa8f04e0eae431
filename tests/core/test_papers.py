"""The catalogue's status is derived: from components, recipes, and recorded runs."""

import json
from pathlib import Path

import pytest

from argus.core import papers
from argus.core.errors import ArgusError, UnknownNameError
from argus.core.recipe import Recipe, find_recipe, recipe_roots
from argus.core.reference import digests
from argus.core.run import Run
from argus.core.yaml_lines import read_yaml


def test_all_systems_are_there_with_their_papers() -> None:
    rows = papers.to_json()
    assert len(rows) == 106
    assert len({row["slug"] for row in rows}) == 106
    assert {"slug", "status", "recipe", "claims"} <= set(rows[0])
    assert all(row["arxiv"] and row["arxiv"][4] == "." for row in rows)
    assert {row["status"] for row in rows} <= {"planned", "built", "measured"}


def test_a_paper_without_component_or_recipe_is_planned() -> None:
    assert papers.paper("moscar").status == "planned"
    with pytest.raises(UnknownNameError, match="Did you mean 'fastervlm'"):
        papers.paper("fastervml")


def finished(root: Path, paper: str = "fastervlm", claims: list[str] | None = None) -> Run:
    """A run folder as the runner leaves it."""
    recipe = Recipe.model_validate({"name": "t", "paper": paper, "model": {"from": "argus/tiny-vlm"}})
    run = Run.create(recipe, root)
    found = [
        {"claim": c, "holds": True, "text": "1 > 0", "values": {}, "margin": 1.0, "reason": None}
        for c in claims or ["full.accuracy > 0"]
    ]
    run.write_json("metrics.json", {"claims": found, "measured": {"full.accuracy": 0.9}})
    return run


def test_measured_only_by_a_recorded_run_whose_claims_are_still_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(papers, "results_folder", lambda: tmp_path / "results")
    assert papers.paper("fastervlm").status == "built"
    import yaml

    claims = yaml.safe_load(find_recipe("papers/fastervlm.yaml").read_text())["claims"]
    run = finished(tmp_path / "runs", claims=claims)
    with pytest.raises(ArgusError, match="not finished"):
        papers.record_result(run)
    run.finish()
    path = papers.record_result(run)
    stored = json.loads(path.read_text())
    assert stored["machine"]
    assert stored["command"]
    found = papers.paper("fastervlm")
    assert found.status == "measured"
    assert found.measured is not None
    assert found.measured["date"] == stored["date"]
    assert [c["claim"] for c in found.claims] == claims
    stored["claims"][0]["claim"] = "full.accuracy > 0.123"
    path.write_text(json.dumps(stored))
    changed = papers.paper("fastervlm")
    assert changed.status == "built"
    assert changed.note == "the recipe's claims changed since they were measured"


def test_a_measurement_with_earlier_weights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "results_folder", lambda: tmp_path / "results")
    claims = [c["claim"] for c in papers.paper("fastervlm").claims]
    run = finished(tmp_path / "runs", claims=claims)
    assert run.read_json("environment.json")["models"] == digests("argus/tiny-vlm")
    run.finish()
    path = papers.record_result(run)
    assert papers.paper("fastervlm").note is None
    path.write_text(path.read_text().replace(digests("argus/tiny-vlm")["argus/tiny-vlm"], "0" * 12))
    found = papers.paper("fastervlm")
    assert found.status == "measured"
    assert found.note == "with earlier weights of argus/tiny-vlm"


def test_digests_are_of_the_models_that_a_text_names() -> None:
    assert set(digests("model: {from: argus/tiny-vlm}\nencoder: argus/tiny-clip, argus/tiny-clippings")) == {
        "argus/tiny-vlm",
        "argus/tiny-clip",
    }
    assert digests("argus/tiny-clippings argus/tiny-vlm-2") == {}
    assert len(set(digests("argus/tiny-vlm argus/tiny-clip argus/tiny-lm").values())) == 3


def test_a_run_of_no_paper_or_without_claims_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "results_folder", lambda: tmp_path / "results")
    run = finished(tmp_path, paper="no-such-paper")
    run.finish()
    with pytest.raises(UnknownNameError, match="no paper 'no-such-paper'"):
        papers.record_result(run)
    empty = finished(tmp_path)
    empty.write_json("metrics.json", {"claims": []})
    empty.finish()
    with pytest.raises(ArgusError, match="measured no claim"):
        papers.record_result(empty)


def test_a_recorded_command_names_no_folder_of_this_machine() -> None:
    assert papers._anywhere("argus run a.yaml --root /home/me/runs x.y=1") == "argus run a.yaml x.y=1"
    assert papers._anywhere("argus run 'a b.yaml' --root=/home/me") == "argus run 'a b.yaml'"


def test_every_paper_has_one_recipe() -> None:
    for root in recipe_roots():
        named = [read_yaml(file)[0].get("paper") for file in (root / "papers").glob("*.yaml")]
        twice = {one for one in named if one and named.count(one) > 1}
        assert not twice, "which of them would be the one that is measured?"
