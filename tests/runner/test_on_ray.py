"""Shards on Ray: one command, the numbers of one run, and no answer lost with a worker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from argus.core.errors import ArgusError, DataError, UnsupportedError
from argus.core.run import RecordWriter, Run
from argus.report.summary import Summary
from argus.runner.on_ray import answer_shard, run_on_ray
from argus.runner.plan import plan
from argus.runner.run import run
from tests.runner.test_shards import answers, numbers

Write = Callable[..., Path]


class LostError(Exception):
    """What the stand-in raises when a worker was lost more often than allowed."""


class InLine(ModuleType):
    """A stand-in for Ray that carries out each task at once, here; a worker that dies is a `KeyboardInterrupt` in it."""

    exceptions = SimpleNamespace(RayTaskError=type("RayTaskError", (Exception,), {}), RayError=LostError)

    def __init__(self, gpus: int = 0) -> None:
        super().__init__("ray")
        self.gpus, self.asked, self.names, self.connected = gpus, {}, [], ""

    def init(self, address: str) -> None:
        if address not in ("local", "auto"):
            raise ConnectionError("nobody answers\nand more lines")
        self.connected = address

    def shutdown(self) -> None:
        self.connected = ""

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0, **({"GPU": 1.0} if self.gpus else {})}

    def remote(self, **asked: Any) -> Callable[..., Any]:
        self.asked = asked
        return lambda function: SimpleNamespace(options=lambda name: SimpleNamespace(remote=self._task(function, name)))

    def _task(self, function: Callable[..., None], name: str) -> Callable[..., Callable[[], None]]:
        def started(*words: Any) -> Callable[[], None]:
            self.names.append(name)
            return lambda: self._carry_out(lambda: function(*words))

        return started

    def _carry_out(self, task: Callable[[], None]) -> None:
        for _ in range(1 + self.asked["max_retries"]):
            try:
                return task()
            except KeyboardInterrupt:
                continue
            except ArgusError as cause:
                error = self.exceptions.RayTaskError()
                error.cause = cause
                raise error from None
        raise LostError("the worker died\nand more lines")

    def wait(self, tasks: list[Any]) -> tuple[list[Any], list[Any]]:
        return tasks[-1:], tasks[:-1]  # in any order

    def get(self, tasks: list[Any]) -> list[None]:
        return [task() for task in tasks]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> InLine:
    stand_in = InLine()
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    return stand_in


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a task computes; sums over more threads may differ in their last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def on_ray(recipe: Path, root: Path, address: str = "local", *changes: str, shards: int = 2, fresh: bool = False) -> Run:
    return run_on_ray(recipe, changes, shards, address, quick=False, fresh=fresh, root=root)


def dying(at: set[int]) -> Callable[[Any, dict[str, Any]], None]:
    """Writes records, but the process dies instead of writing the n-th, for each n in `at`."""
    write, count = RecordWriter.write, iter(range(1, 10_000))

    def writes(self: Any, record: dict[str, Any]) -> None:
        if next(count) in at:
            raise KeyboardInterrupt
        write(self, record)

    return writes


@pytest.mark.slow
def test_a_real_cluster_loses_a_worker_and_gives_the_numbers_of_one_run(recipe: Write, tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    file, root = recipe(), tmp_path / "runs"
    one = run(file, root=tmp_path / "one")
    before: list[bytes] = []

    def kill() -> None:
        """The worker of shard 1, as soon as it has answered something."""
        while not (found := [f for f in root.glob("tiny/*/shards/1/records/*") if f.stat().st_size]):
            time.sleep(0.002)
        workers = [p for p in psutil.Process().children(recursive=True) if p.cmdline()[:1] == ["ray::shard 1"]]
        workers[0].kill()
        workers[0].wait()
        before.append(found[0].read_bytes())
        before.append((root.glob("tiny/*/shards/1/state.json").__next__()).read_bytes())

    killer = Thread(target=kill, daemon=True)
    killer.start()
    done = on_ray(file, root)
    assert not killer.is_alive()
    assert b'"finished": false' in before[1]
    after = next(f for f in (done.folder / "shards/1/records").iterdir() if f.read_bytes().startswith(before[0]))
    assert len(after.read_bytes()) > len(before[0]) > 0  # it went on where the lost worker was
    assert answers(done.folder) == answers(one.folder)
    assert numbers(done.folder) == numbers(one.folder)
    assert (done.folder / "report.html").exists()


def test_a_shard_goes_on_after_its_worker_was_lost(
    ray: InLine, recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = recipe(("samples: 48", "samples: 16"), ("cost_samples: 2", "cost_samples: 3"))
    one = run(file, root=tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", dying({9, 30, 31}))
        done = on_ray(file, tmp_path / "runs", shards=3)
    assert answers(done.folder) == answers(one.folder)
    assert numbers(done.folder) == numbers(one.folder)
    assert [c.holds for c in Summary.load(done.folder).claims] == [c.holds for c in Summary.load(one.folder).claims]
    assert Summary.load(done.folder).command.endswith("--shards 3 --ray local")
    assert ray.names == ["shard 0", "shard 1", "shard 2"]
    assert sorted(folder.name for folder in (done.folder / "shards").iterdir()) == ["0", "1", "2"]
    commands = {Run(folder).read_json("environment.json")["command"] for folder in (done.folder / "shards").iterdir()}
    assert commands == {done.read_json("environment.json")["command"]}
    assert not ray.connected  # the cluster is let go


def test_the_same_command_goes_on_after_a_shard_was_given_up(
    ray: InLine, recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = recipe(("samples: 48", "samples: 8"), ("cost_samples: 2", "cost_samples: 1"))
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", dying({20, 21, 22, 23}))
        with pytest.raises(ArgusError, match="lost 4 times: the worker died All records are kept"):
            on_ray(small, tmp_path)
    (folder,) = (tmp_path / "tiny").iterdir()
    kept = {file: file.read_bytes() for file in folder.glob("shards/*/records/*")}
    assert Run.latest_unfinished(plan(small).recipe, tmp_path) is None  # a plain run does not go on in it
    assert on_ray(small, tmp_path).folder == folder
    assert all(file.read_bytes().startswith(begun) for file, begun in kept.items())
    assert on_ray(small, tmp_path).folder != folder  # finished: the next is a new one


def test_a_merge_that_was_interrupted_goes_on(
    ray: InLine, recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = recipe(("samples: 48", "samples: 8"), ("cost_samples: 2", "cost_samples: 1"))
    whole = on_ray(small, tmp_path / "whole")
    answered = sum(len(file.read_bytes().splitlines()) for file in whole.folder.glob("shards/*/records/*"))
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", dying({answered + 12}))
        with pytest.raises(KeyboardInterrupt):
            on_ray(small, tmp_path / "runs")
    done = on_ray(small, tmp_path / "runs")
    assert len(list((tmp_path / "runs/tiny").iterdir())) == 1
    assert answers(done.folder) == answers(whole.folder)


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_task_asks_for_a_gpu_where_there_is_one(ray: InLine, recipe: Write, tmp_path: Path, gpus: int) -> None:
    ray.gpus = gpus
    on_ray(recipe(("samples: 48", "samples: 2"), ("cost_samples: 2", "cost_samples: 1")), tmp_path)
    assert ray.asked == {"num_cpus": 1, "num_gpus": gpus, "max_retries": 3}


def test_a_node_that_does_not_see_the_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"recipe.yaml: node .* does not see this .*--root"):
        answer_shard(tmp_path / "nowhere", tmp_path, (0, 2))
    assert not (tmp_path / "nowhere").exists()


def test_what_is_wrong_with_a_shard_is_said_as_without_ray(
    ray: InLine, recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise ArgusError("the disk is full")

    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(ArgusError, match="the disk is full"):
        on_ray(recipe(), tmp_path)


def test_a_cluster_that_is_not_there_leaves_no_folder(ray: InLine, recipe: Write, tmp_path: Path) -> None:
    with pytest.raises(ArgusError, match=r"no Ray cluster at '10\.0\.0\.1:6379': nobody answers Start one .* --ray local"):
        on_ray(recipe(), tmp_path / "runs", "10.0.0.1:6379")
    assert not (tmp_path / "runs").exists()


def test_without_ray_the_extra_is_named(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnsupportedError, match=r"not installed pip install 'argus-vl\[ray\]'"):
        on_ray(recipe(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_shards_would_each_do_for_themselves_is_refused(ray: InLine, recipe: Write, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="fresh seed"):
        on_ray(recipe(("samples: 48", "samples: 48\n    seed: fresh")), tmp_path)
    training = recipe(
        ("  full: {}", "  full: {train: [tune]}"),
        ("evaluate:", "stages: {tune: {objective: sft, data: {world: {objects: 1.0}}, steps: 1}}\nevaluate:"),
    )
    with pytest.raises(UnsupportedError, match="trains"):
        on_ray(training, tmp_path)
    assert ray.names == []
