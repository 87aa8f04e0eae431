"""`argus benchmarks`: the index, and what an audit adds to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from argus.core import benchmarks as index
from tests.runner.tiny import tiny_model

Argus = Callable[..., Result]


def test_the_table_shows_cost_answer_reader_and_twin(argus: Argus) -> None:
    rows = {line.split()[0]: line.split() for line in argus("benchmarks").output.splitlines()}
    assert rows["benchmark"] == ["benchmark", "cost", "answer", "read", "twin", "guessed", "capabilities"]
    assert rows["seed-bench"][1:6] == ["large", "choice", "yes", "yes", "-"]
    assert rows["mmstar"][1:6] == ["small", "choice", "-", "yes", "-"]
    assert "GUI" in argus("benchmarks").output.splitlines()[-1]  # no benchmark yet


def test_capabilities_choose_and_cover(argus: Argus) -> None:
    names = [row["name"] for row in json.loads(argus("benchmarks", "list", "video", "OCR", "--json").output)]
    assert names == ["seed-bench-2"]
    covered = argus("benchmarks", "cover", "video", "OCR", "GUI").output
    assert covered == "seed-bench-2: OCR, video\nno benchmark yet for: GUI\n"
    wrong = argus("benchmarks", "list", "ocr")
    assert wrong.exit_code == 2
    assert "Did you mean 'OCR'" in wrong.output or "Valid: " in wrong.output


def test_an_audit_fills_in_the_checklist_and_is_kept(argus: Argus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "audits_folder", lambda: tmp_path / "audits")
    pictures = tmp_path / "train.jsonl"
    assert argus("world", "export", "objects", "--count", 2, "--size", 96, "--split", "test", "--out", pictures).exit_code == 0
    words = ("--samples", 24, "--training", pictures, "--root", tmp_path)
    result = argus("audit", tiny_model(), "world/objects", *words)
    assert result.exit_code == 0, result.output
    assert "? human level" in result.output
    (folder,) = (path.parent for path in tmp_path.rglob("checklist.json"))
    checks = {check["name"]: check for check in json.loads((folder / "checklist.json").read_text())}
    assert checks["not learned by heart"]["holds"] is None  # no --base
    # 24 questions about 3 pictures, of which 2 stand in the training data
    assert checks["not in the training data"]["holds"] is False
    assert checks["not in the training data"]["text"].startswith("66.7 %")
    assert checks["enough items per task"]["holds"] is False
    assert checks["several kinds of questions"]["holds"] is True
    kept = argus("benchmarks", "record", "world/objects", folder)
    assert kept.exit_code == 0, kept.output
    shown = argus("benchmarks", "show", "world/objects").output
    assert "✗ not in the training data" in shown
    row = next(line for line in argus("benchmarks").output.splitlines() if line.startswith("world/objects"))
    assert row.split()[5][0] in "+-"
    assert row.split()[5] != "-"


def test_another_run_is_not_kept(argus: Argus, tmp_path: Path) -> None:
    result = argus("benchmarks", "record", "mmstar", tmp_path)
    assert result.exit_code == 2
