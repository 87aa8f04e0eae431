"""`argus papers measure`: which recipes, in which order, by whom, and what is recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from argus.core import papers
from argus.core.errors import LockedError
from argus.core.run import RunLock
from argus.runner import measure
from tests.runner.tiny import tiny_model

Argus = Callable[..., Result]
RECIPE = """\
name: {slug}
paper: {slug}
model: {{from: {model}}}
evaluate: [{{scenario: {{world/objects: {{size: 32, families: [existence]}}}}, samples: 4}}]
claims: [full.accuracy >= 0]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with its own recipes and results; run folders go to `runs` in it, as they do by default."""
    (tmp_path / "recipes" / "papers").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papers, "results_folder", lambda: tmp_path / "results")
    return tmp_path


def recipe(root: Path, slug: str, model: str = "argus/tiny-vlm") -> None:
    """A recipe of a system that has none else."""
    (root / "recipes" / "papers" / f"{slug}.yaml").write_text(RECIPE.format(slug=slug, model=model))


def recorded(slug: str, minutes: float, weights: str | None = None, claim: str = "full.accuracy >= 0") -> None:
    """A record of it, made with the weights of today or others."""
    models = {"argus/tiny-vlm": weights or papers.digests("argus/tiny-vlm")["argus/tiny-vlm"]}
    claims = [{"claim": claim, "holds": True, "text": "1 >= 0"}]
    rest = {"command": "", "commit": "", "date": "", "machine": ""}
    data = {"slug": slug, "claims": claims, "models": models, "minutes": minutes, **rest}
    (papers.results_folder() / f"{slug}.json").write_text(json.dumps(data))


def order(argus: Argus, *words: str) -> list[str]:
    """The systems of this test in the order that --dry-run prints."""
    result = argus("papers", "measure", "--dry-run", *words)
    assert result.exit_code == 0, result.output
    files = [Path(word).stem for line in result.output.splitlines() for word in line.split() if word.endswith(".yaml")]
    return [slug for slug in files if slug in {"moscar", "hllm", "liger", "llava-kd"}]


def test_missing_and_stale_measurements_shortest_first(argus: Argus, root: Path) -> None:
    for slug in ("moscar", "hllm", "liger", "llava-kd"):
        recipe(root, slug)
    recorded("moscar", 9.0, weights="0" * 12)  # with weights of the past
    recorded("hllm", 2.0, claim="full.accuracy >= 0.5")  # of a claim of the past
    recorded("liger", 1.0)  # as it should be
    assert order(argus) == ["hllm", "moscar", "llava-kd"]  # the last was never recorded
    assert order(argus, "--stale") == ["moscar"]
    assert order(argus, "--unmeasured") == ["hllm", "llava-kd"]
    assert order(argus, "--stale", "--unmeasured") == ["hllm", "moscar", "llava-kd"]
    # systems that are named: all of them, in the order given, each once
    assert order(argus, "liger", "moscar", "liger") == ["liger", "moscar"]
    assert order(argus, "liger", "moscar", "--stale") == ["moscar"]


def test_the_order_is_printed_with_minutes_and_reasons(argus: Argus, root: Path) -> None:
    recipe(root, "moscar")
    recipe(root, "hllm")
    recorded("moscar", 9.0, weights="0" * 12)
    lines = argus("papers", "measure", "moscar", "hllm", "--dry-run").output.splitlines()
    assert lines[0].split(maxsplit=3) == ["9.0", "min", "recipes/papers/moscar.yaml", "with earlier weights of argus/tiny-vlm"]
    assert lines[1].split(maxsplit=2) == ["?", "recipes/papers/hllm.yaml", "never measured"]
    assert lines[2].split(maxsplit=2) == ["9.0", "min", "1 again, 1 for the first time"]
    recorded("moscar", 9.0)
    assert "nothing to measure" in argus("papers", "measure", "moscar", "--stale", "--dry-run").output
    assert not (root / "runs").exists()


def test_a_system_without_recipe_is_refused(argus: Argus, root: Path) -> None:
    result = argus("papers", "measure", "hllm")
    assert result.exit_code == 2
    assert "'hllm' has no recipe" in result.output
    assert "Did you mean 'fastervlm'" in argus("papers", "measure", "fastervml").output


def test_a_recipe_is_run_and_recorded_and_a_failing_one_stops_no_other(argus: Argus, root: Path) -> None:
    recipe(root, "hllm", model="no/such-folder")
    recipe(root, "moscar", model=str(tiny_model()))
    result = argus("papers", "measure", "hllm", "moscar", "--root", "elsewhere")
    assert result.exit_code == 1
    assert "recipe 1 of 2: recipes/papers/hllm.yaml; 0.0 minutes used" in result.output
    assert "recipe 2 of 2: recipes/papers/moscar.yaml" in result.output
    assert "1 of 1 claims hold" in result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("failed: recipes/papers/hllm.yaml: ")
    assert "no/such-folder" in last
    # what is recorded is what `argus run` and `argus papers record` would have
    stored = json.loads((root / "results" / "moscar.json").read_text())
    assert stored["command"] == "argus run recipes/papers/moscar.yaml"
    assert [c["claim"] for c in stored["claims"]] == ["full.accuracy >= 0"]
    assert not (root / "results" / "hllm.json").exists()
    assert papers.paper("moscar").status == "measured"
    assert not list((root / "elsewhere").glob("*.lock"))
    assert len(list((root / "elsewhere" / "moscar").glob("*/"))) == 1


def test_what_another_process_has_or_has_recorded_is_passed_over(
    argus: Argus, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process is at `moscar`; another records `hllm` after this one began; `liger` was left by a process that died."""
    ran: list[str] = []

    def run(recipe: str, _root: Path) -> str:
        ran.append(Path(recipe).stem)
        recorded("hllm", 1.0)
        return "stopped here"

    monkeypatch.setattr(measure, "_run", run)
    for slug in ("moscar", "liger", "hllm"):
        recipe(root, slug)
    (root / "runs").mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (root / "runs" / "moscar.lock").write_text(str(os.getppid()))
    (root / "runs" / "liger.lock").write_text(str(dead.pid))
    recorded("hllm", 1.0, weights="0" * 12)
    os.utime(root / "results" / "hllm.json", (time.time() - 60,) * 2)
    result = argus("papers", "measure", "moscar", "liger", "hllm")
    assert ran == ["liger"]
    assert "moscar.yaml, passed over: another process is at it" in result.output
    assert "hllm.yaml, passed over: another process has recorded it" in result.output
    assert result.exit_code == 1
    assert result.output.strip().splitlines()[-1] == "failed: recipes/papers/liger.yaml: stopped here"
    assert [p.name for p in (root / "runs").glob("*.lock")] == ["moscar.lock"]


def test_of_processes_that_take_a_lock_at_once_one_has_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from argus.core.errors import LockedError\n"
        "from argus.core.run import RunLock\n"
        "time.sleep(max(0.0, float(sys.argv[2]) - time.time()))\n"
        "try:\n"
        "    with RunLock(Path(sys.argv[1])):\n"
        "        time.sleep(2)\n"
        "        print('had it')\n"
        "except LockedError:\n"
        "    pass\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "x.lock"), str(time.time() + 4)]
    racing = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert sum(p.communicate()[0].count("had it") for p in racing) == 1


def test_a_lock_without_a_living_owner_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text("")  # its maker died before it wrote who it is
    with RunLock(path):
        assert path.read_text() == str(os.getpid())
    path.write_text(str(os.getppid()))
    with pytest.raises(LockedError), RunLock(path):
        pass
    assert path.exists()
