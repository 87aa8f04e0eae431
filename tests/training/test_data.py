"""A stage's samples: pure functions of their index, whatever a scene has to offer."""

from __future__ import annotations

from pathlib import Path

import pytest

from argus.core.errors import DataError, RecipeError
from argus.training.data import StageData
from argus.training.options import DataOptions


def test_a_scene_without_a_question_is_replaced_by_another_one() -> None:
    """Relations need two things, and scenes of one to two things often have one."""
    options = {"world": {"objects": 1.0}, "domains": {"objects": {"max_objects": 2}}, "families": ["relation"], "questions": 1}
    data = StageData(DataOptions.model_validate(options), 60)
    drawings = [data[i][0] for i in range(60)]
    assert all(drawing.questions for drawing in drawings)
    replaced = [d for i, d in enumerate(drawings) if d.id != f"objects/train/{i}"]
    assert 10 < len(replaced) < 50
    assert len({d.id for d in drawings}) == 60
    again = StageData(DataOptions.model_validate(options), 60)
    assert [again[i][0].id for i in range(60)] == [d.id for d in drawings]


def test_records_of_a_file_that_cannot_be_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n{"mess')
    assert len(StageData(DataOptions.model_validate({"files": [str(path)]}), 4).files) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "d.jsonl: 1 records set aside, the first:" in printed
    path.write_text('{"mess')
    with pytest.raises(DataError, match=r"no readable sample .*d\.jsonl:1: not valid JSON"):
        StageData(DataOptions.model_validate({"files": [str(path)]}), 4)


def test_scenes_that_never_have_a_question_are_an_error() -> None:
    options = {"world": {"objects": 1.0}, "domains": {"objects": {"max_objects": 1}}, "families": ["relation"]}
    with pytest.raises(DataError, match="nothing to ask of relation"):
        StageData(DataOptions.model_validate(options), 4)[0]


def test_a_family_that_nobody_asks_is_refused() -> None:
    options = DataOptions.model_validate({"world": {"objects": 1.0}, "families": ["colours"]})
    with pytest.raises(RecipeError, match=r"objects ask no 'colours' questions.*\n?.*colour"):
        StageData(options, 1)


def test_the_same_items_come_again_behind_the_last_different_one() -> None:
    options = {"world": {"objects": 1.0}, "start": 5, "distinct": 3, "questions": 1}
    data = StageData(DataOptions.model_validate(options), 8)
    assert [data[i][0].id for i in range(8)] == [f"objects/train/{5 + i % 3}" for i in range(8)]
