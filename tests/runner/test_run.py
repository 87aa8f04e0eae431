"""A run on a tiny random model: what it writes, and that nothing is lost however it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argus.core import run as core_run
from argus.core.errors import ArgusError
from argus.core.papers import record_result
from argus.core.run import Run
from argus.report.summary import Summary
from argus.runner.run import run

Write = Callable[..., Path]


def numbers(folder: Path) -> dict[str, float]:
    """Everything measured but times, so that a repeated run gives the same."""
    times = ("seconds", "samples_per_second", "mfu")
    return {name: value for name, value in Summary.load(folder).measured.items() if not name.endswith(times)}


def records(folder: Path) -> int:
    return sum(len(p.read_text().splitlines()) for p in folder.glob("records/*.jsonl"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The uninterrupted run of the tiny recipe."""
    from tests.runner.conftest import RECIPE
    from tests.runner.tiny import tiny_model

    root = tmp_path_factory.mktemp("finished")
    (root / "tiny.yaml").write_text(RECIPE.format(model=tiny_model()))
    return run(root / "tiny.yaml", root=root / "runs")


def test_a_run_measures_judges_and_reports(finished: Run) -> None:
    summary = Summary.load(finished.folder)
    assert [v.name for v in summary.variants] == ["full", "fastervlm", "fastv"]
    assert [v.changes for v in summary.variants] == ["", "fastervlm (keep 0.25)", "fastv (keep 0.25, layer 1)"]
    # 32 px in patches of 8 are 16 visual tokens, a quarter of which is 4
    assert summary.measured["full.visual_tokens"] == 16
    assert summary.measured["fastervlm.visual_tokens"] == 4
    assert summary.measured["fastv.objects.visual_tokens"] == 4
    assert summary.measured["full.accuracy[colour]"] == summary.measured["full.objects.accuracy[colour]"]
    assert [c.holds for c in summary.claims] == [True, True, True]
    assert re.fullmatch(r"4 == 4", summary.claims[0].text)
    assert summary.evaluated[0].questions == 48
    assert summary.evaluated[0].set_aside == {}
    assert 0.25 < summary.evaluated[0].chance["all"] < 0.5
    assert finished.read_json("state.json")["finished"]


def test_examples_show_what_each_technique_kept(finished: Run) -> None:
    (evaluated,) = Summary.load(finished.folder).evaluated
    assert len(evaluated.examples) == 2
    for example in evaluated.examples:
        assert [r.variant for r in example.replies] == ["full", "fastervlm", "fastv"]
        assert [(r.kept, r.total) for r in example.replies] == [(None, None), (4, 16), (4, 16)]
        assert all((finished.folder / r.picture).is_file() for r in example.replies if r.picture)
        assert (finished.folder / example.picture).is_file()


def test_the_page_gives_the_command_to_run_it_again(finished: Run) -> None:
    summary = Summary.load(finished.folder)
    assert re.fullmatch(r"argus run \S*tiny\.yaml", summary.command)
    assert summary.command in (finished.folder / "report.html").read_text()


def test_a_run_without_a_paper_is_no_measurement(finished: Run) -> None:
    with pytest.raises(ArgusError, match="names no paper"):
        record_result(finished)


def test_a_finished_run_is_not_resumed(recipe: Write, tmp_path: Path) -> None:
    file = recipe(("samples: 48", "samples: 2"), ("  - full.accuracy[colour] >= 0\n", ""))
    assert run(file, root=tmp_path / "runs").folder != run(file, root=tmp_path / "runs").folder


DRIVER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
from argus.core.run import RecordWriter

write, left, number = RecordWriter.write, [int(sys.argv[1])], getattr(signal, sys.argv[2])

def counted(self, record):
    write(self, record)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), number)

RecordWriter.write = counted
sys.argv = ["argus", "run", sys.argv[3], "--root", sys.argv[4]]
from argus.cli import main
main()
"""


def stopped(file: Path, root: Path, after: int, signal: str) -> subprocess.CompletedProcess[str]:
    """`argus run` in a process of its own that gets a signal after so many records."""
    command = [sys.executable, "-c", DRIVER, str(after), signal, str(file), str(root)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_numbers(recipe: Write, tmp_path: Path, finished: Run) -> None:
    file, root = recipe(), tmp_path / "runs"
    # 48 answers, 2 costs and the seed are one variant's 51 records: 70 is in the middle of the second variant.
    assert stopped(file, root, 70, "SIGKILL").returncode == -9
    (folder,) = (root / "tiny").iterdir()
    assert records(folder) == 70
    with next(folder.glob("records/fastervlm*.jsonl")).open("a") as part:
        part.write('{"id": "torn')  # what a machine that loses power leaves
    before = next(folder.glob("records/full*.jsonl")).read_bytes()
    resumed = run(file, root=root)
    assert resumed.folder == folder
    assert next(folder.glob("records/full*.jsonl")).read_bytes() == before  # nothing is asked twice
    assert records(folder) == records(finished.folder)
    assert numbers(folder) == numbers(finished.folder)


def test_ctrl_c_says_how_to_go_on(recipe: Write, tmp_path: Path) -> None:
    result = stopped(recipe(), tmp_path / "runs", 20, "SIGINT")
    assert result.returncode == 130
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    assert f"everything done so far is kept in {folder}" in result.stderr
    assert re.search(rf"To go on: argus run \S+tiny\.yaml --root {tmp_path / 'runs'}$", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr
    assert records(folder) == 20
    assert not (folder / "lock").exists()


def test_fresh_starts_anew(recipe: Write, tmp_path: Path) -> None:
    file = recipe(("samples: 48", "samples: 2"), ("  - full.accuracy[colour] >= 0\n", ""))
    first = run(file, root=tmp_path / "runs")
    state = json.loads((first.folder / "state.json").read_text())
    (first.folder / "state.json").write_text(json.dumps({**state, "finished": False}))
    assert run(file, fresh=True, root=tmp_path / "runs").folder != first.folder
    assert run(file, root=tmp_path / "runs").folder == first.folder


def test_a_full_disk_loses_nothing(recipe: Write, tmp_path: Path, finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file, root = recipe(), tmp_path / "runs"

    class Full:
        """A file on a disk with room for so many lines."""

        room = 30

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def write(self, line: bytes) -> int:
            Full.room -= 1
            if Full.room < 0:
                raise OSError(28, "No space left on device")
            return self.inner.write(line)

    opened = core_run.RecordWriter.__init__

    def on_full_disk(self: Any, path: Path) -> None:
        opened(self, path)
        self._file = Full(self._file)

    monkeypatch.setattr(core_run.RecordWriter, "__init__", on_full_disk)
    with pytest.raises(ArgusError, match=r"the disk is full; 30 records are safe.*same command again"):
        run(file, root=root)
    monkeypatch.undo()
    resumed = run(file, root=root)
    assert numbers(resumed.folder) == numbers(finished.folder)


def test_pictures_that_cannot_be_read_are_counted_not_scored(recipe: Write, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "red.png").read_bytes()[:40])
    rows = [
        {
            "id": str(n),
            "messages": [{"role": "user", "content": [{"type": "image", "image": name}, {"type": "text", "text": "Colour?"}]}],
            "target": "red",
            "options": ["red", "blue"],
        }
        for n, name in enumerate(["red.png", "torn.png", "gone.png", "red.png"])
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "torn')
    file = recipe(
        ("{world/objects: {size: 32, families: [existence, colour, count]}}", f"{{file: {{path: {data}}}}}"),
        ("  - full.accuracy[colour] >= 0\n", ""),
    )
    (evaluated,) = Summary.load(run(file, root=tmp_path / "runs").folder).evaluated
    assert evaluated.results[0].metrics["accuracy"].n == 2
    reasons = " ".join(evaluated.set_aside)
    assert sum(evaluated.set_aside.values()) == 3
    assert "gone.png" in reasons
    assert "torn.png" in reasons


TRAINED = """\
stages:
  tune:
    objective: sft
    data: {world: {objects: 1.0}, size: 32, questions: 2}
    train: [multi_modal_projector]
    steps: 4
    batch_size: 2
    precision: fp32
    save_every: 1
    log_every: 1
variants:
  tuned: {train: [tune]}
  tuned_fastervlm: {train: [tune], attach: {fastervlm: {keep: 0.25}}}
"""


def test_an_interrupted_stage_goes_on_from_its_checkpoint(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from argus.runner import held

    text = recipe(("samples: 48", "samples: 4")).read_text()
    start, end = text.index("variants:"), text.index("evaluate:")
    file = tmp_path / "trained.yaml"
    claims = "claims: [tuned.tune.loss > 0, tuned.tune.steps == 4, tuned.tune.parameters == tuned_fastervlm.tune.parameters]\n"
    file.write_text(text[:start] + TRAINED + text[end : text.index("claims:")] + claims)
    whole = run(file, root=tmp_path / "whole")
    assert [claim.holds for claim in Summary.load(whole.folder).claims] == [True] * 3  # what training ended with is measured

    train, calls = held.train_stage, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        def stop(step: int) -> None:
            if step == 3:
                raise KeyboardInterrupt

        calls.append(args)
        return train(*args, **kwargs, on_step=stop)

    monkeypatch.setattr(held, "train_stage", interrupted)
    with pytest.raises(KeyboardInterrupt, match="To go on: argus run"):
        run(file, root=tmp_path / "runs")
    monkeypatch.undo()
    (folder,) = (tmp_path / "runs" / "tiny").iterdir()
    kept = sorted(p.name for p in folder.glob("stages/tuned/tune/checkpoints/checkpoint-*"))
    assert kept[-1] == "checkpoint-2"  # the third step was not saved yet
    resumed = run(file, root=tmp_path / "runs")
    assert resumed.folder == folder
    assert numbers(resumed.folder) == numbers(whole.folder)
    losses = [[entry["loss"] for entry in Summary.load(f).trained[0].log] for f in (whole.folder, folder)]
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]
    # Both variants stand on the same trained weights, which were trained once.
    assert [(t.variant, t.stage) for t in Summary.load(folder).trained] == [("tuned", "tune")]
    assert not (folder / "stages" / "tuned_fastervlm").exists()
    assert "loss of stage tune" in (folder / "report.html").read_text()


def test_a_technique_that_cannot_work_on_the_model_is_refused_before_anything_is_asked(recipe: Write, tmp_path: Path) -> None:
    file = recipe(("{keep: 0.25, layer: 1}", "{keep: 0.25, layer: 9}"))  # the model has two layers; fastv is the last variant
    with pytest.raises(ArgusError, match=r"tiny\.yaml:6: .*layer 9.*only 2 layers"):
        run(file, root=tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("records/*"))


def test_variants_share_a_fresh_seed(recipe: Write, tmp_path: Path) -> None:
    """A new part of the world is drawn once for all variants, so that they are compared on the same questions."""
    file = recipe(("samples: 48", "samples: 8\n    seed: fresh"))
    folder = run(file, root=tmp_path / "runs").folder
    asked = [
        sorted(row["id"] for row in map(json.loads, path.read_text().splitlines()) if row["kind"] == "answer")
        for path in sorted(folder.glob("records/*.jsonl"))
    ]
    assert len(asked) == 3
    assert asked[0] == asked[1] == asked[2]
    assert "/0/" not in asked[0][0]
