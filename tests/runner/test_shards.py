"""Shards: several processes answer one recipe, and merged they give the numbers of one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argus.core.errors import ArgusError, DataError, UnsupportedError
from argus.core.run import RecordWriter, Run
from argus.report.summary import Summary
from argus.runner.plan import plan
from argus.runner.run import run
from argus.runner.shards import _in_order, merge, run_shard

Write = Callable[..., Path]


def answers(folder: Path) -> list[dict[str, Any]]:
    """All records in their order, without the time they took."""
    rows = [json.loads(line) for file in sorted(folder.glob("records/*")) for line in file.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def numbers(folder: Path) -> dict[str, float]:
    return Summary.load(folder).measured


@pytest.fixture
def whole(recipe: Write) -> Path:
    """A recipe with five batches of two pictures, the last one cut short, asked with and without pictures."""
    return recipe(("samples: 48", "samples: 72\n    blind: true"), ("cost_samples: 2", "cost_samples: 5"))


def test_merged_shards_equal_one_run(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = run(whole, root=tmp_path / "one")
    for shard in (2, 0):  # in any order
        run_shard(whole, [], shard, 3, quick=False, fresh=False, root=tmp_path / "runs")
    written: list[str] = []
    write_record = RecordWriter.write

    def killed(self: Any, record: dict[str, Any]) -> None:
        written.append(record["id"])
        if len(written) == 30:  # inside a batch
            raise KeyboardInterrupt
        write_record(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", killed)
        with pytest.raises(KeyboardInterrupt, match=r"To go on: argus run .* --shards 3 --shard 1 --root "):
            run_shard(whole, [], 1, 3, quick=False, fresh=False, root=tmp_path / "runs")
    with pytest.raises(DataError, match="shard 1 of 3 is not finished"):
        merge(list((tmp_path / "runs/tiny").iterdir()))
    run_shard(whole, [], 1, 3, quick=False, fresh=False, root=tmp_path / "runs")
    folders = sorted((tmp_path / "runs/tiny").iterdir())
    assert len(folders) == 3  # it went on in its own folder
    done = merge(folders)
    assert answers(done.folder) == answers(one.folder)
    assert numbers(done.folder) == numbers(one.folder)
    assert [c.holds for c in Summary.load(done.folder).claims] == [c.holds for c in Summary.load(one.folder).claims]
    shown = [Summary.load(folder).evaluated[0].examples for folder in (done.folder, one.folder)]
    assert shown[0] == shown[1]
    assert shown[0][0].replies[1].kept == 4  # what a technique left of a picture is known to the first shard
    (tmp_path / "runs/tiny/notes.txt").write_text("four nodes")
    (tmp_path / "runs/tiny/plots").mkdir()
    beside = [tmp_path / "runs/tiny/notes.txt", tmp_path / "runs/tiny/plots"]
    assert merge([*folders, done.folder, *beside]).folder != done.folder  # what is no shard is passed over, a merged run too


def test_answers_that_came_in_any_order_are_merged_batch_by_batch(tmp_path: Path) -> None:
    """An endpoint's answers are written as they come."""
    written = {"0": [(4, False), (0, False), (2, True), (2, False), (0, True)], "1": [(3, False), (1, True), (1, False)]}
    for shard, places in written.items():
        with RecordWriter(tmp_path / f"{shard}.jsonl") as records:
            records.write({"id": "seed", "kind": "seed"})
            for batch, blind in places:
                for n in range(2):
                    records.write({"id": f"{batch}/{n}{'#blind' if blind else ''}", "blind": blind, "batch": batch})
        with (tmp_path / f"{shard}.jsonl").open("a") as file:
            file.write('{"id": "to')  # killed
    found = [record["id"] for record in _in_order([tmp_path / f"{shard}.jsonl" for shard in written])]
    seen = [f"{batch}/{n}" for batch in range(5) for n in range(2)]
    assert found == ["seed", "seed", *seen, *(f"{one}#blind" for one in seen[:6])]


def test_shards_are_numbered_from_zero(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgusError, match="no shard 3: 3 shards are numbered 0 to 2"):
        run_shard(whole, [], 3, 3, quick=False, fresh=False, root=tmp_path)


def test_missing_and_foreign_shards_are_named(recipe: Write, tmp_path: Path) -> None:
    small = recipe(("samples: 48", "samples: 8"), ("cost_samples: 2", "cost_samples: 1"))
    first = run_shard(small, [], 0, 2, quick=False, fresh=False, root=tmp_path)
    with pytest.raises(DataError, match="of 2 shards 1 are missing"):
        merge([first.folder])
    other = run_shard(small, ["evaluate.0.samples=4"], 1, 2, quick=False, fresh=False, root=tmp_path)
    with pytest.raises(DataError, match="different recipes"):
        merge([first.folder, other.folder])
    with pytest.raises(DataError, match="there twice"):
        merge([first.folder, first.folder])


def test_a_plain_run_does_not_go_on_in_a_shard(recipe: Write, tmp_path: Path) -> None:
    made = plan(recipe()).recipe
    Run.create(made, tmp_path, shard=[0, 2])
    assert Run.latest_unfinished(made, tmp_path) is None
    assert Run.latest_unfinished(made, tmp_path, [1, 2]) is None
    assert Run.latest_unfinished(made, tmp_path, [0, 2]) is not None


def test_what_shards_would_each_do_for_themselves_is_refused(recipe: Write, tmp_path: Path) -> None:
    fresh = recipe(("samples: 48", "samples: 48\n    seed: fresh"))
    with pytest.raises(UnsupportedError, match="fresh seed"):
        run_shard(fresh, [], 0, 2, quick=False, fresh=False, root=tmp_path)
    training = recipe(
        ("  full: {}", "  full: {train: [tune]}"),
        ("evaluate:", "stages: {tune: {objective: sft, data: {world: {objects: 1.0}}, steps: 1}}\nevaluate:"),
    )
    with pytest.raises(UnsupportedError, match="trains"):
        run_shard(training, [], 0, 2, quick=False, fresh=False, root=tmp_path)
