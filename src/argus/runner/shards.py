"""One evaluation by several processes: each answers every k-th batch, and `merge` puts the records in the order of one run.

    argus run FILE --shards 4 --shard 0     ... on as many machines as there are shards, in a folder that all of them see
    argus merge runs/<name>/*               one run folder with the numbers and the page of one run

Where the machines form a Ray cluster, one command does all of it: see `on_ray`.

A shard is a run folder of its own and resumes like one. Batches are the same as without shards, and so is every bit of their
arithmetic. Numbers are computed once, from the merged records. What a GPU or a node does to floating point is not undone by that.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from heapq import merge as merged
from pathlib import Path
from typing import Any

from argus.core.errors import ArgusError, DataError, UnsupportedError
from argus.core.progress import console
from argus.core.run import RecordWriter, Run
from argus.evaluation.engine import build_metrics, evaluate
from argus.evaluation.results import summarise
from argus.runner.examples import candidates, left
from argus.runner.held import Held
from argus.runner.plan import Plan, plan
from argus.runner.run import asking, carry_out, conclude, interrupted


def run_shard(
    recipe: str | Path, overrides: Sequence[str], shard: int, shards: int, *, quick: bool, fresh: bool, root: Path
) -> Run:
    """Answer one shard's share of a recipe's evaluations; no numbers are computed yet.

    Args:
        recipe, overrides, quick, fresh, root: as `run` takes them.
        shard: number of this shard, from 0.
        shards: how many there are.

    Raises:
        ArgusError: there is no such shard.
        UnsupportedError: the recipe trains, or draws a fresh seed, which the shards would do each for itself.
        KeyboardInterrupt: the user stopped it; its text says how to go on.
    """
    if not 0 <= shard < shards:
        raise ArgusError(f"there is no shard {shard}: {shards} shards are numbered 0 to {shards - 1}")
    made = plan(recipe, overrides, quick=quick)
    check(made)
    found = None if fresh else Run.latest_unfinished(made.recipe, root, [shard, shards])
    opened = found or Run.create(made.recipe, root, shard=[shard, shards], quick=quick)
    console().print(f"{'resuming' if found else 'running'} shard {shard} of {shards} in {opened.folder}", highlight=False)
    words = ["argus", "run", str(recipe), *overrides, "--shards", str(shards), "--shard", str(shard)]
    command = shlex.join([*words, *(["--quick"] if quick else [])])
    with opened.lock():
        try:
            answer(made, opened, (shard, shards))
        except KeyboardInterrupt:
            raise interrupted(opened, command, root) from None
    console().print(f"done; when all {shards} are: argus merge {opened.folder.parent}/*", highlight=False, soft_wrap=True)
    return opened


def answer(made: Plan, opened: Run, shard: tuple[int, int]) -> None:
    """Answer what is left of shard (i, k) in its run folder."""
    held = Held(made, opened)
    for variant in made.recipe.variants:
        for name in made.evaluations:
            _ask(held, opened, variant, name, made, shard)
    opened.finish()


def merge(folders: Sequence[Path]) -> Run:
    """One finished run from the finished shards of a recipe, beside them.

    Raises:
        DataError: shards are missing, unfinished, or of different recipes.
    """
    shards, made = complete(folders)
    opened = Run.create(made.recipe, shards[0].folder.parent.parent)
    with opened.lock():
        unite(shards, made, opened, shlex.join(["argus", "merge", *(str(shard.folder) for shard in shards)]))
    return opened


def unite(shards: Sequence[Run], made: Plan, opened: Run, command: str) -> None:
    """Put the records of all shards into one run, and conclude it; what was put there before stays."""
    (opened.folder / "results").mkdir(exist_ok=True)
    for variant in made.recipe.variants:
        for name in made.evaluations:
            part, options = f"{variant}.{name}", made.options(variant, name)
            with opened.records(part) as records:
                seen = records.done_ids()  # each shard wrote the seed down
                for record in _in_order([shard.folder / "records" / f"{part}.jsonl" for shard in shards]):
                    if record["id"] not in seen:
                        records.write(record)
                        seen.add(record["id"])
                result = summarise(records.records(), build_metrics(options), options.examples)
            views = shards[0].read_json(f"results/{part}.json")["views"]
            opened.write_json(f"results/{part}.json", {"result": result.record(), "views": views})
    conclude(carry_out(made, opened, command, bool(shards[0].read_json("state.json")["quick"])), opened)


def check(made: Plan) -> None:
    """Refuse what shards would each do for themselves.

    Raises:
        UnsupportedError: the recipe trains, or draws a fresh seed.
    """
    if trained := [name for name, variant in made.recipe.variants.items() if variant.train]:
        raise UnsupportedError(
            f"variant '{trained[0]}' trains, which shards would do each for itself",
            hint="Train in a run without shards; then evaluate the folder of the trained model.",
        )
    if any(options.seed == "fresh" for options in made.evaluations.values()):
        raise UnsupportedError("shards would each draw a fresh seed of their own", hint="Give one: evaluate.0.seed=12345")


def _ask(held: Held, opened: Run, variant: str, name: str, made: Plan, shard: tuple[int, int]) -> None:
    """One variant in one evaluation; the first shard also keeps what techniques left of the examples' pictures."""
    part, options = f"{variant}.{name}", made.options(variant, name)
    if opened.read_json(f"results/{part}.json"):
        return
    model, processor = held.take(variant)
    console().print(f"{variant}: {name}", highlight=False)
    with held.attached(variant) as attachments, opened.records(part) as records:
        result = evaluate(model, processor, options, run_part=records, attachment=asking(attachments), shard=shard)
        views = {} if shard[0] else left(model, processor, candidates(options, result.seed), attachments)
    (opened.folder / "results").mkdir(exist_ok=True)
    opened.write_json(f"results/{part}.json", {"views": views})


def complete(folders: Sequence[Path]) -> tuple[list[Run], Plan]:
    """All shards of one recipe in their order, and what it asks for. What is no shard, or no run at all, is passed over.

    Raises:
        DataError: shards are missing, unfinished, or of different recipes.
    """
    found: dict[int, Run] = {}
    digests: set[str] = set()
    count = 0
    for folder in folders:
        run = Run(folder)
        state = run.read_json("state.json")
        if not state.get("shard"):
            continue
        number, count = state["shard"]
        if not state.get("finished"):
            raise DataError(f"shard {number} of {count} is not finished", where=str(folder), hint="Give its command again.")
        digests.add(f"{state['digest']} {count}")
        if number in found:
            raise DataError(f"shard {number} is there twice: also in {found[number].folder}", where=str(folder))
        found[number] = run
    if not found:
        raise DataError("none of these runs is a shard", hint="Shards are made by: argus run FILE --shards K --shard I")
    if len(digests) > 1:
        raise DataError("these are shards of different recipes", where=", ".join(str(run.folder) for run in found.values()))
    if missing := sorted(set(range(count)) - set(found)):
        raise DataError(
            f"of {count} shards {', '.join(map(str, missing))} are missing", where=str(found[min(found)].folder.parent)
        )
    return [found[number] for number in range(count)], plan(found[0].folder / "recipe.yaml")


def _in_order(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Records of all shards, batch by batch, with pictures before without; few of them are in memory at once.

    A shard's own file need not be in this order: an endpoint's answers are written as they come.
    """

    def place(record: dict[str, Any]) -> tuple[bool, int]:
        return record.get("blind", False), record.get("batch", -1)

    def read(file: Path) -> Iterator[dict[str, Any]]:
        with RecordWriter(file) as records:
            yield from records.sorted_by(place)

    for record in merged(*map(read, files), key=place):
        yield {key: value for key, value in record.items() if key != "batch"}
