"""Nothing is lost: records survive kill -9, a full disk and a torn line, and a run goes on where it was."""

import errno
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from argus.core.errors import ArgusError, DataError
from argus.core.recipe import ModelSpec, Recipe
from argus.core.run import RecordWriter, Run

RECIPE = Recipe.model_validate({"name": "A Test: run", "model": {"from": "argus/tiny-vlm"}})


def test_records_come_back_in_order(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "r.jsonl") as out:
        for i in range(3):
            out.write({"id": f"q{i}", "answer": "größer"})
        assert [r["id"] for r in out.records()] == ["q0", "q1", "q2"]
    with RecordWriter(tmp_path / "r.jsonl") as again:
        assert again.done_ids() == {"q0", "q1", "q2"}
        assert next(again.records())["v"] == 1


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b", "x": ')
    with RecordWriter(path) as out:
        assert out.done_ids() == {"a"}
        out.write({"id": "b"})
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_torn_line_in_the_middle_is_set_aside_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": "a"}\n{"id": \n{"id": "c"}\n')
    with RecordWriter(path) as out:
        assert out.torn == [f"{path}:2"]
        assert out.done_ids() == {"a", "c"}


def test_kill_minus_nine_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from argus.core.run import RecordWriter\n"
        f"out = RecordWriter(Path({str(path)!r}))\n"
        "for i in range(100000):\n    out.write({'id': str(i)}); print(i, flush=True); time.sleep(0.001)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    last = -1
    for line in child.stdout:
        last = int(line)
        if last >= 40:
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    with RecordWriter(path) as out:
        assert {str(i) for i in range(last + 1)} <= out.done_ids()
        ids = [int(r["id"]) for r in out.records()]
        assert ids == list(range(len(ids)))


def test_a_full_disk_says_what_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = RecordWriter(tmp_path / "r.jsonl")
    out.write({"id": "a"})

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            self.file.write(data[:3])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(out, "_file", Full(out._file))
    with pytest.raises(ArgusError, match=r"the disk is full; 1 records are safe.*same command again"):
        out.write({"id": "b"})
    with RecordWriter(tmp_path / "r.jsonl") as again:
        assert again.done_ids() == {"a"}
        assert not again.torn


def test_the_same_recipe_finds_its_unfinished_run(tmp_path: Path) -> None:
    run = Run.create(RECIPE, tmp_path)
    assert run.folder.parent.name == "a-test-run"
    found = Run.latest_unfinished(RECIPE, tmp_path)
    assert found is not None
    assert found.folder == run.folder
    other = RECIPE.model_copy(update={"seed": 1})
    assert Run.latest_unfinished(other, tmp_path) is None
    run.finish()
    assert Run.latest_unfinished(RECIPE, tmp_path) is None


def test_a_run_that_began_with_other_weights_is_not_gone_on_with(tmp_path: Path) -> None:
    """Variants that were trained before and after a shipped model changed would be compared with each other."""
    recipe = RECIPE.model_copy(update={"model": ModelSpec.model_validate({"from": "argus/tiny-vlm"})})
    run = Run.create(recipe, tmp_path)
    assert Run.latest_unfinished(recipe, tmp_path) is not None
    run.write_json("environment.json", {**run.read_json("environment.json"), "models": {"argus/tiny-vlm": "0" * 12}})
    assert Run.latest_unfinished(recipe, tmp_path) is None


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    assert Run.create(RECIPE, tmp_path).folder != Run.create(RECIPE, tmp_path).folder


def test_a_second_process_is_kept_out_and_a_dead_owner_is_not(tmp_path: Path) -> None:
    run = Run.create(RECIPE, tmp_path)
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    (run.folder / "lock").write_text(str(alive.pid))
    with pytest.raises(ArgusError, match=f"process {alive.pid} is writing"), run.lock():
        pass
    alive.kill()
    alive.wait()
    time.sleep(0.01)
    with run.lock():
        assert (run.folder / "lock").exists()
    assert not (run.folder / "lock").exists()


def test_the_command_that_is_kept_can_be_typed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "a b.yaml", "claims=[full.accuracy >= 0]", "name=it's"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/argus", *words])
    kept = Run.create(RECIPE, tmp_path).read_json("environment.json")["command"]
    assert shlex.split(kept) == ["argus", *words]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no state\.json"):
        Run.open(tmp_path)
