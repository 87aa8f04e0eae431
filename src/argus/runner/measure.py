"""Measure what the catalogue lacks: recipes one after another, each in a process of its own, recorded when it is finished.

    due(slugs, ...) -> jobs, one a recipe        measure(jobs, root) -> what failed, and why

A recipe runs as `argus run` would run it by hand, so that its record says that command, its memory is given back, and a crash
ends nothing but itself. Several processes may measure under one root: a lock `<root>/<recipe>.lock` names the one that has a
recipe, and a recipe that one of them has recorded is passed over by the others.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from argus.core.errors import ArgusError, LockedError, UnsupportedError
from argus.core.papers import last_minutes, paper, papers, record_result, recorded_since
from argus.core.progress import console
from argus.core.recipe import load_recipe
from argus.core.run import Run, RunLock

TAIL = 40  # last lines of a failed run's messages, in which the reason is looked for
CLOSING_SECONDS = 10.0  # that an interrupted run has to close its files


@dataclass(frozen=True, slots=True)
class Job:
    """One recipe to run.

    Args:
        recipe: as `argus run` takes it.
        slugs: systems that it measures.
        why: what the catalogue lacks, for people.
        minutes: how long its last recorded run took.
    """

    recipe: str
    slugs: tuple[str, ...]
    why: str
    minutes: float | None


def due(slugs: Sequence[str] = (), *, stale: bool = False, unmeasured: bool = False) -> list[Job]:
    """The recipes to run, each once: of the named systems, or of all whose measurement is missing or stale.

    Named systems come in the order given, others the shortest first and those that were never recorded last.

    Args:
        slugs: systems; empty for all.
        stale: of these only the ones recorded with weights that a shipped model has no more.
        unmeasured: of these only the ones without a record of the recipe's claims as they are now; with `stale`, both.

    Raises:
        ArgusError: a named system is unknown or has no recipe.
    """
    found = [paper(slug) for slug in dict.fromkeys(slugs)] or [p for p in papers() if p.recipe]
    for one in found:
        if one.recipe is None:
            raise UnsupportedError(f"'{one.slug}' has no recipe to measure", hint="`argus papers show` names a system's recipe.")
    if not slugs or stale or unmeasured:
        both = stale == unmeasured
        found = [p for p in found if ((both or stale) and p.stale) or ((both or unmeasured) and p.measured is None)]
    jobs: dict[str, Job] = {}
    for one in found:
        recipe = str(Path("recipes") / str(one.recipe))
        others = jobs[recipe].slugs if recipe in jobs else ()
        jobs[recipe] = Job(
            recipe, (*others, one.slug), one.note or ("" if one.measured else "never measured"), last_minutes(one.slug)
        )
    return list(jobs.values()) if slugs else sorted(jobs.values(), key=lambda job: (job.minutes is None, job.minutes))


def overview(jobs: Sequence[Job]) -> str:
    """The order, and how long each took when it was last recorded."""
    if not jobs:
        return "nothing to measure: every recipe has a record of its claims, made with the weights that the shipped models have"
    width = max(len(job.recipe) for job in jobs)
    lines = [
        f"{f'{job.minutes:.1f} min' if job.minutes is not None else '?':>9}  {job.recipe:{width}}  {job.why}".rstrip()
        for job in jobs
    ]
    known = [job.minutes for job in jobs if job.minutes is not None]
    new = f", {len(jobs) - len(known)} for the first time" if len(known) < len(jobs) else ""
    return "\n".join([*lines, f"{f'{sum(known):.1f} min':>9}  {len(known)} again{new}"])


def measure(jobs: Sequence[Job], root: Path) -> dict[str, str]:
    """Run the recipes in order and record each as it finishes.

    Args:
        jobs: the recipes.
        root: folder that run folders are made in, and that the locks are in.

    Returns:
        Recipe -> why it failed, for those that did.

    Raises:
        KeyboardInterrupt: the user stopped it; its text says how to go on.
    """
    begun, failed = time.time(), dict[str, str]()
    root.mkdir(parents=True, exist_ok=True)
    for at, job in enumerate(jobs, start=1):
        used = (time.time() - begun) / 60
        head = f"recipe {at} of {len(jobs)}: {job.recipe}"
        with ExitStack() as stack:
            lock = root / f"{Path(job.recipe).stem}.lock"
            try:
                stack.enter_context(RunLock(lock))
            except LockedError:
                _say(f"{head}, passed over: another process is at it ({lock})")
                continue
            if any(recorded_since(slug, begun) for slug in job.slugs):
                _say(f"{head}, passed over: another process has recorded it")
                continue
            last = f", last time {job.minutes:g} minutes" if job.minutes is not None else ""
            _say(f"{head}{last}; {used:.1f} minutes used")
            try:
                _say(_measured(job, root))
            except ArgusError as error:
                failed[job.recipe] = error.text()
                _say(f"failed: {error.text()}")
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted in {job.recipe}; the same command goes on there") from None
    return failed


def _measured(job: Job, root: Path) -> str:
    """Run a recipe, record it, and say what became of its claims."""
    reason = _run(job.recipe, root)
    if reason is not None:
        raise ArgusError(reason)
    run = Run.latest_finished(load_recipe(job.recipe).recipe, root)
    if run is None:
        raise ArgusError(
            "the recipe, or a shipped model that it names, changed while it ran", where=job.recipe, hint="Measure it again."
        )
    path = record_result(run)
    holds = [claim["holds"] for claim in run.read_json("metrics.json")["claims"]]
    minutes = run.read_json("state.json")["seconds"] / 60
    return f"recorded {path}: {holds.count(True)} of {len(holds)} claims hold; {minutes:.1f} minutes"


def _run(recipe: str, root: Path) -> str | None:
    """Run a recipe in a process of its own, with its output on ours; why it failed, if it did."""
    command = [sys.executable, "-c", "from argus.cli import main; main()", "run", recipe, "--root", str(root)]
    last: deque[str] = deque(maxlen=TAIL)
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends this process ends the run with it
    try:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
            try:
                for line in process.stderr or ():
                    sys.stderr.write(line)
                    last.append(line.rstrip())
            except KeyboardInterrupt:
                _ended(process)
                raise
    finally:
        signal.signal(signal.SIGTERM, usual)
    if process.returncode == 0:
        return None
    said = [line.removeprefix("error: ") for line in last if line.startswith("error: ")] or [line for line in last if line]
    return said[-1] if said and process.returncode > 0 else f"the run ended with {_ending(process.returncode)}"


def _ended(process: subprocess.Popen[str]) -> None:
    """Let a run that a terminal interrupted, too, close its files; end one that knows nothing of it."""
    try:
        process.wait(CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()


def _ending(code: int) -> str:
    return f"signal {-code}, of which 9 is what the system sends where memory is short" if code < 0 else f"exit code {code}"


def _say(text: str) -> None:
    console().print(text, highlight=False, soft_wrap=True)
