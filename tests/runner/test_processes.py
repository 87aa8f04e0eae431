"""`argus run` under torchrun: two processes train one run, and one of them writes, evaluates and reports it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from argus.core.run import Run
from argus.report.summary import Summary
from argus.runner import processes
from argus.runner.run import run
from tests.runner.test_run import Write

TRAINED = """\
stages:
  tune:
    objective: sft
    data: {world: {objects: 1.0}, size: 32, questions: 2, families: [existence]}
    steps: 4
    batch_size: 4
    optimizer: muon
    precision: fp32
    log_every: 1
variants:
  tuned: {train: [tune]}
  full: {}
"""


@pytest.fixture
def trained(recipe: Write, tmp_path: Path) -> Path:
    text = recipe(("samples: 48", "samples: 4")).read_text()
    start, end = text.index("variants:"), text.index("evaluate:")
    file = tmp_path / "trained.yaml"
    file.write_text(text[:start] + TRAINED + text[end : text.index("claims:")] + "claims: [tuned.tune.loss > 0]\n")
    return file


def together(file: Path, root: Path) -> subprocess.CompletedProcess[str]:
    script = root.parent / "argus_run.py"
    script.write_text("import sys\nfrom argus.cli import main\nsys.argv[0] = 'argus'\nmain()\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(file), "--root", str(root)], capture_output=True, text=True, env=environment, check=False, timeout=300
    )


@pytest.mark.slow
def test_two_processes_train_one_run(trained: Path, tmp_path: Path) -> None:
    done = together(trained, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"report: ", done.stdout)) == 1
    (folder,) = (tmp_path / "two" / "tiny").iterdir()
    assert Run(folder).read_json("state.json")["finished"]
    one = run(trained, root=tmp_path / "one")
    losses = [[entry["loss"] for entry in Summary.load(f).trained[0].log] for f in (one.folder, folder)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert [r.variant for r in Summary.load(folder).evaluated[0].results] == ["tuned", "full"]

    shutil.rmtree(folder / "results")  # as if it had been stopped behind the training: only the first process has work left
    Run(folder).write_json("state.json", {**Run(folder).read_json("state.json"), "finished": False})
    again = together(trained, tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert "resuming" in again.stdout
    assert "step 1/4" not in again.stdout


@pytest.mark.slow
def test_what_stops_the_first_process_stops_all(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = together(trained, tmp_path / "file")
    assert done.returncode != 0
    assert "cannot make the run folder" in done.stdout + done.stderr


def test_one_process_needs_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    with processes.joined():
        assert processes.first()
        assert not processes.several()
        assert processes.agreed(lambda: tmp_path) == tmp_path
