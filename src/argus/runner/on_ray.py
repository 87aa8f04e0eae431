"""All shards of a recipe as tasks of a Ray cluster, then the numbers and the page of one run.

    argus run FILE --shards 4 --ray local    on this machine alone
    argus run FILE --shards 4 --ray auto     on the cluster that this machine belongs to; or an address, as `ray.init` takes it

    runs/<name>/<time>/             the run
    runs/<name>/<time>/shards/<i>/  what shard i answered, a run folder of its own

A task asks for one CPU, and for one GPU where the cluster has any; on a CPU it computes with one thread, like
`OMP_NUM_THREADS=1 argus run FILE`. When a worker is lost - killed, out of memory, its node gone - its shard starts again
elsewhere and goes on from its records; so does everything when the same command is given again. The folder of the run and the
folder that the command is given in must be there on every node under the same path, and Argus installed.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging

from argus.core.environment import environment
from argus.core.errors import ArgusError, DataError, UnsupportedError
from argus.core.progress import console, track
from argus.core.run import Run
from argus.runner.plan import plan
from argus.runner.run import interrupted
from argus.runner.shards import answer, check, complete, unite

RETRIES = 3  # how often a shard starts again after its worker was lost


def run_on_ray(
    recipe: str | Path, overrides: Sequence[str], shards: int, address: str, *, quick: bool, fresh: bool, root: Path
) -> Run:
    """Run a recipe's evaluations in shards on a Ray cluster.

    Args:
        recipe, overrides, quick, fresh, root: as `run` takes them.
        shards: into how many parts the evaluations are split; as many run at a time as the cluster has room for.
        address: `local`, `auto`, or where the cluster is.

    Returns:
        The finished run.

    Raises:
        UnsupportedError: Ray is not installed; or the recipe trains, or draws a fresh seed.
        ArgusError: there is no such cluster, a node does not see the run folder, or a worker was lost again and again.
        KeyboardInterrupt: the user stopped it; its text says how to go on.
    """
    made = plan(recipe, overrides, quick=quick)
    check(made)
    words = ["argus", "run", str(recipe), *overrides, "--shards", str(shards), "--ray", address]
    command = shlex.join([*words, *(["--quick"] if quick else [])])
    with _cluster(address) as ray:
        found = None if fresh else Run.latest_unfinished(made.recipe, root, shards=shards)
        opened = found or Run.create(made.recipe, root, shards=shards, quick=quick)
        start = "resuming" if found else "running"
        console().print(f"{start} {made.recipe.name} in {opened.folder}, {shards} shards on Ray", highlight=False)
        with opened.lock():
            try:
                for _ in track(_finished(ray, opened, shards), "shards", total=shards, unit="shards"):
                    pass
                unite(*complete([_folder(opened.folder, i) for i in range(shards)]), opened, command)
            except KeyboardInterrupt:
                raise interrupted(opened, command, root) from None
    return opened


def answer_shard(folder: Path, home: Path, shard: tuple[int, int]) -> None:
    """What a task does, on whatever node: answer what is left of a shard.

    Args:
        folder: of the whole run.
        home: the folder that the command was given in; a recipe's own paths begin there.
        shard: (i, k).

    Raises:
        DataError: this node does not see the folders.
    """
    for needed in (home, folder / "recipe.yaml"):
        if not needed.exists():
            raise DataError(
                f"node {platform.node()} does not see this",
                where=str(needed),
                hint="Give the command in a folder that all nodes share, and --root FOLDER if runs go elsewhere.",
            )
    os.chdir(home)
    logging.disable_progress_bar()  # a worker's lines are shown where the command was given
    made = plan(folder / "recipe.yaml")
    whole, own = Run.open(folder), Run(_folder(folder, shard[0]))
    state = own.read_json("state.json")
    if not state:
        own.begin(made.recipe, shard=list(shard), quick=whole.read_json("state.json")["quick"])
        own.write_json("environment.json", {**environment(), "command": whole.read_json("environment.json")["command"]})
    if not state.get("finished"):
        answer(made, own, shard)


def _folder(run: Path, shard: int) -> Path:
    return run / "shards" / str(shard)


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, connected; its tasks end with it."""
    try:
        import ray
    except ImportError:
        raise UnsupportedError("--ray needs Ray, which is not installed", hint="pip install 'argus-vl[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray started here reports to nobody
    try:
        ray.init(address=address)
    except (ConnectionError, ValueError) as error:
        raise ArgusError(
            f"there is no Ray cluster at '{address}': {str(error).splitlines()[0]}",
            hint="Start one with `ray start --head`, or use this machine alone: --ray local",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _finished(ray: Any, opened: Run, shards: int) -> Iterator[Any]:
    """Start a task for each shard and yield as each is done; the first that fails ends them all."""
    task = ray.remote(num_cpus=1, num_gpus=1 if ray.cluster_resources().get("GPU") else 0, max_retries=RETRIES)(answer_shard)
    folder, home = opened.folder.resolve(), Path.cwd()
    waiting = [task.options(name=f"shard {i}").remote(folder, home, (i, shards)) for i in range(shards)]
    while waiting:
        done, waiting = ray.wait(waiting)
        try:
            yield ray.get(done)
        except ray.exceptions.RayTaskError as error:  # raised by Argus itself: again would be the same
            if isinstance(error.cause, ArgusError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise ArgusError(
                f"the worker of a shard was lost {RETRIES + 1} times: {str(error).splitlines()[0]}",
                where=str(opened.folder),
                hint="All records are kept; give the same command again to go on.",
            ) from None
