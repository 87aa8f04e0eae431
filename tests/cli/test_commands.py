"""What the commands print and write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

from argus.cli.components import options_text
from argus.cli.models import description
from argus.cli.techniques import technique
from argus.core.formats import read_samples
from argus.core.registry import components
from tests.runner.tiny import tiny_model

Argus = Callable[..., Result]


def test_components_lists_every_component(argus: Argus) -> None:
    listed = json.loads(argus("components", "list", "--json").output)
    assert [(row["kind"], row["name"]) for row in listed] == [(c.kind, c.name) for c in components()]
    assert argus("components").output == argus("components", "list").output


@pytest.mark.parametrize("row", components(), ids=lambda row: f"{row.kind}-{row.name}")
def test_the_options_of_every_component_can_be_shown(argus: Argus, row: object) -> None:
    result = argus("components", "show", row.kind, row.name)  # type: ignore[attr-defined]
    assert result.exit_code == 0, result.output
    model = row.load().Options  # type: ignore[attr-defined]
    for name, field in model.model_fields.items():
        assert re.search(rf"^{name} ", result.output, re.MULTILINE)
        assert field.description, f"option {name} has no description"


def test_options_are_shown_with_type_bounds_default_and_meaning() -> None:
    from typing import Literal

    from pydantic import Field

    from argus.core.registry import Options

    class Shown(Options):
        share: float = Field(0.25, ge=0, lt=1, description="how much")
        kind: Literal["a", "b"] = Field("a", description="which")
        names: list[str] | None = Field(None, description="whose")
        path: str = Field(description="where")

    # columns are as wide as their widest entry
    lines = [re.split(r"  +", line) for line in options_text(Shown).splitlines()]
    assert lines[1:] == [
        ["share", "float >= 0 < 1", "0.25", "how much"],
        ["kind", '"a" or "b"', '"a"', "which"],
        ["names", "list[str] or null", "null", "whose"],
        ["path", "str", "required", "where"],
    ]


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("fastervlm", "fastervlm", {}),
        ("fastervlm:keep=0.25", "fastervlm", {"keep": 0.25}),
        ("fastv:keep=0.5,layer=3", "fastv", {"keep": 0.5, "layer": 3}),
        ("x:a=true,b=null,c=word", "x", {"a": True, "b": None, "c": "word"}),
    ],
)
def test_techniques_are_read_from_the_command_line(text: str, name: str, options: dict[str, object]) -> None:
    assert technique(text) == (name, options)


def test_world_show_draws_a_sheet(argus: Argus, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert argus("world", "show", "objects", "--out", out, "--count", 2, "--size", 64).exit_code == 0
    with Image.open(out) as sheet:
        assert sheet.width > 2 * 64


def test_world_export_writes_what_data_check_reads(argus: Argus, tmp_path: Path) -> None:
    out = tmp_path / "objects.jsonl"
    result = argus("world", "export", "objects", "--count", 3, "--questions", 2, "--size", 32, "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(argus("data", "check", out, "--json").output)
    assert (found["good"], found["bad"], found["pictures"]) == (3, 0, 3)
    assert found["roles"] == {"user": 6, "assistant": 6}


@pytest.mark.parametrize("ending", ["jsonl", "json", "tsv", "parquet"])
def test_world_exports_in_every_format(argus: Argus, tmp_path: Path, ending: str) -> None:
    """A table has one question a row, the others one conversation a picture."""
    out = tmp_path / f"objects.{ending}"
    result = argus("world", "export", "objects", "--count", 12, "--questions", 4, "--size", 32, "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(argus("data", "check", out, "--json").output)
    many = 48 if ending == "tsv" else 12
    assert (found["good"], found["bad"], found["pictures"]) == (many, 0, many)
    if ending == "tsv":
        samples = list(read_samples(out))
        assert {s.metadata["category"] for s in samples} > {"colour", "count"}
        assert any(s.target in s.options for s in samples)
        assert not any(s.options and s.target not in s.options for s in samples)


def test_world_takes_options_of_the_domain(argus: Argus, tmp_path: Path) -> None:
    out = tmp_path / "one.jsonl"
    command = (
        "world",
        "export",
        "documents",
        "min_words=1",
        "max_words=1",
        "text=random",
        "--count",
        4,
        "--size",
        32,
        "--out",
        out,
    )
    assert argus(*command).exit_code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    asked = [m["content"][-1]["text"] for row in rows for m in row["messages"] if m["role"] == "user"]
    assert asked
    assert not any("top word" in text for text in asked)  # one word has no top
    wrong = argus("world", "show", "documents", "max_word=1", "--out", tmp_path / "x.png")
    assert wrong.exit_code != 0
    assert "max_words" in wrong.output  # the nearest right name


def test_world_audit_shows_priors(argus: Argus) -> None:
    result = argus("world", "audit", "objects", "--scenes", 60)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.output.splitlines()[1:]}
    assert rows["existence"][2] == "50.0%"  # two options


def test_papers_are_listed_with_their_state(argus: Argus) -> None:
    every = json.loads(argus("papers", "list", "--json").output)
    assert len(every) > 100
    assert {p["status"] for p in every} <= {"planned", "built", "measured"}
    assert json.loads(argus("papers", "--json").output) == every
    assert argus("papers").output == argus("papers", "list").output
    built = argus("papers", "list", "--status", "planned").output.splitlines()
    assert len(built) == sum(p["status"] == "planned" for p in every)
    shown = argus("papers", "show", "fastervlm").output
    assert "arXiv 2412.01818" in shown
    assert "component  reducer fastervlm" in shown


def test_chat_answers(argus: Argus, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    plain = argus("chat", tiny_model(), tmp_path / "red.png", "What colour is it?", "--tokens", 5)
    assert plain.exit_code == 0, plain.output
    whole = argus(
        "chat", tiny_model(), tmp_path / "red.png", "What colour is it?", "--tokens", 5, "--attach", "fastervlm:keep=1.0"
    )
    assert whole.output == plain.output


def test_look_draws_what_each_technique_kept(argus: Argus, tmp_path: Path) -> None:
    out = tmp_path / "look.png"
    result = argus(
        "look", "objects", "--model", tiny_model(), "--technique", "fastervlm", "--technique", "fastv:layer=1,keep=0.5",
        "--keep", 0.25, "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "fastervlm: kept 4 of 16 visual tokens" in result.output
    assert "fastv: kept 8 of 16 visual tokens" in result.output
    with Image.open(out) as strip:
        assert strip.width > 3 * 288


def test_look_draws_a_decoding_method_beside_reducers(argus: Argus, tmp_path: Path) -> None:
    """It has no `keep`, and drops nothing."""
    out = tmp_path / "look.png"
    result = argus(
        "look", "objects", "--model", tiny_model(), "--technique", "damro", "--technique", "random", "--keep", 0.5, "--out", out
    )
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[:2] == ["damro: drops no visual tokens", "random: kept 8 of 16 visual tokens"]


def test_look_draws_the_way_of_a_search(argus: Argus, tmp_path: Path) -> None:
    out = tmp_path / "look.png"
    search = "zoomeye:smallest=40,words=[yes, no],existence=Is there {a} {cue}?"
    result = argus(
        "look", "objects", "--model", tiny_model(), "--size", 128, "--search", search, "--cue", "red star", "--out", out
    )
    assert result.exit_code == 0, result.output
    assert "zoomeye for red star: " in result.output
    assert "kept" not in result.output  # no technique was named
    with Image.open(out) as strip:
        assert strip.width > 2 * 256


def test_models_counts_parameters_from_the_file_alone() -> None:
    from safetensors import safe_open

    found = description(tiny_model())
    with safe_open(tiny_model() / "model.safetensors", "np") as file:
        count = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert found["type"] == "argus"
    assert found["parameters"] == count
    assert found["scores"] == {}


def test_models_lists_what_is_shipped(argus: Argus) -> None:
    from argus.core.reference import reference_models

    rows = json.loads(argus("models", "--json").output)
    assert [row["name"] for row in rows] == list(reference_models())
    scores = next(row for row in rows if row["name"] == "argus/tiny-vlm")["scores"]["objects"]
    right, blind, chance = scores["all"]["value"], scores["blind"]["value"], scores["chance"]["all"]
    shown = argus("models").output
    assert f"  objects: {right:.1%} (without picture {blind:.1%}, chance {chance:.1%}" in shown
    assert "{" not in shown


def test_models_names_the_families_that_are_no_better_than_chance() -> None:
    from argus.cli.models import line

    chance = {"all": 0.4, "colour": 0.25, "relation": 0.5}
    value = {"all": 0.7, "colour": 0.8, "relation": 0.53, "blind": 0.4}
    groups = {name: {"value": v, "low": v - 0.04, "high": v + 0.04, "n": 600} for name, v in value.items()}
    assert line({**groups, "chance": chance}) == "70.0% (without picture 40.0%, chance 40.0%; no better than chance: relation)"
    del groups["relation"]
    assert line({**groups, "chance": chance}) == "70.0% (without picture 40.0%, chance 40.0%)"


def test_doctor_names_versions_and_extras(argus: Argus) -> None:
    found = json.loads(argus("doctor", "--json").output)
    assert {"argus", "python", "torch", "machine"} <= set(found["environment"])
    assert found["extras"]["data"] in (True, False)
    assert "torch" in argus("doctor").output


def test_recipe_check_counts_what_it_found(argus: Argus, tmp_path: Path) -> None:
    from tests.runner.conftest import RECIPE

    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE.format(model=tiny_model()))
    assert argus("recipe", "check", file).output == f"{file}: 3 variants, 1 evaluations, 3 claims: fine\n"


def test_run_and_report(argus: Argus, tmp_path: Path) -> None:
    from tests.runner.conftest import RECIPE

    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE.format(model=tiny_model()))
    words = ("evaluate.0.samples=4", "claims=[full.accuracy >= 0]", "evaluate.0.examples=0")
    result = argus("run", file, *words, "--quick", "--root", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    page = folder / "report.html"
    first = page.read_bytes()
    assert b"quick run: a smoke test" in first
    page.unlink()
    assert argus("report", folder).exit_code == 0
    assert page.read_bytes() == first
    refused = argus("papers", "record", folder)
    assert refused.exit_code == 2
    assert "a quick run is a smoke test" in refused.output


def test_attention_draws_shift_and_dispersion(argus: Argus, tmp_path: Path) -> None:
    out = tmp_path / "attention.png"
    result = argus("attention", "objects", "--pictures", 3, "--out", out)
    assert result.exit_code == 0
    per_layer = re.search(r"per layer: (.*)", result.output)
    assert per_layer is not None
    assert len(per_layer[1].split()) == 6  # the layers of argus/tiny-vlm
    assert all(-1 <= float(v) <= 1 for v in per_layer[1].split())
    with Image.open(out) as drawn:
        assert drawn.width > 2 * drawn.height
