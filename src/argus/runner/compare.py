"""Several runs side by side, as far as they were asked the same questions.

Runs meet in an evaluation when its scenario, samples and seed are equal in both; how they were asked may differ, for that is
often what is compared. An entry is a variant of a run. Where some did not answer all questions, every number is computed again
from the records of those that all answered; costs stay, for they are not of single answers. Pictures are drawn again from the
scenario, so nothing is stored twice; where its data is gone by now, the page shows none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argus.core.errors import ArgusError, DataError
from argus.core.images import load_image
from argus.core.run import Run
from argus.evaluation.engine import build_metrics
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.results import EvaluationResult, summarise
from argus.evaluation.scenarios.base import build_scenario
from argus.evaluation.statistics import paired
from argus.report.comparison import Board, Item, write_comparison
from argus.report.summary import Evaluated, Result, Summary
from argus.runner.plan import asked_in

SHOWN = 8  # questions shown of each kind


@dataclass(slots=True)
class _Entry:
    """A variant of a run in one evaluation."""

    name: str
    file: Path
    evaluated: Evaluated
    result: Result
    options: EvaluationOptions


def compare(folders: Sequence[Path], out: Path) -> list[Path]:
    """Compare finished runs and write the page.

    Raises:
        DataError: a run is not finished, or no two entries were asked the same questions.
    """
    met = [entries for entries in _entries(folders).values() if len(entries) > 1]
    if not met:
        raise DataError("these runs were not asked the same questions", where=", ".join(map(str, folders)))
    boards = [_board(entries) for entries in met]
    for number, board in enumerate(boards):
        again = sum(other.evaluated.name == board.evaluated.name for other in boards[:number])
        board.evaluated.name += f"_{again + 1}" if again else ""
    return write_comparison(boards, out)


def _entries(folders: Sequence[Path]) -> dict[str, list[_Entry]]:
    """What was asked -> who was asked it."""
    runs = [(folder, Summary.load(folder), asked_in(folder / "recipe.yaml")) for folder in folders]
    times = Counter(variant.name for _, summary, _ in runs for variant in summary.variants)
    found: dict[str, list[_Entry]] = {}
    for folder, summary, asked in runs:
        for evaluated in summary.evaluated:
            for result in evaluated.results:
                options = asked[result.variant, evaluated.name]
                key = json.dumps([options.model_dump(mode="json")[k] for k in ("scenario", "samples")] + [evaluated.seed])
                name = result.variant if times[result.variant] == 1 else f"{folder.parent.name}/{folder.name}: {result.variant}"
                file = Run.open(folder).folder / "records" / f"{result.variant}.{evaluated.name}.jsonl"
                found.setdefault(key, []).append(_Entry(name, file, evaluated, result, options))
    return found


def _board(entries: Sequence[_Entry]) -> Board:
    first = entries[0].evaluated
    answered = [_answers(entry.file) for entry in entries]
    items = [
        Item(
            id_, row["family"], row["question"], row["target"] or "", row["group"],
            [(found[id_]["answer"], found[id_]["correct"]) for found in answered],
        )
        for id_, row in answered[0].items() if all(id_ in found for found in answered)
    ]  # fmt: skip
    results = [Result(e.name, e.result.measurements, e.result.seconds) for e in entries]
    better = {metric: way for e in entries for metric, way in e.evaluated.better.items()}
    board = Board(Evaluated(first.name, first.title, len(items), results, better, chance=first.chance, seed=first.seed), items)
    for entry, result, found in zip(entries, results, answered, strict=True):
        if len(found) > len(items):
            try:
                common = _common(entry, {item.id for item in items})
            except ArgusError:  # a metric that cannot be built any more
                board.own.append(entry.name)
                continue
            result.measurements, result.seconds = common.measurements, common.seconds
            if entry is entries[0]:
                board.evaluated.chance = {group: common.chance[group] for group in first.chance if group in common.chance}
    scored = [item for item in items if all(points is not None for _, points in item.replies)]
    if scored:
        groups = [item.group for item in scored]
        columns = [[float(item.replies[k][1] or 0) for item in scored] for k in range(len(entries))]
        board.differences = [(e.name, paired(c, columns[0], groups)) for e, c in zip(entries[1:], columns[1:], strict=True)]
        board.differing = _varied(item for item in scored if item.replies[0][1] != item.replies[-1][1])
        board.missed = _varied(sorted((item for item in scored if item.points < 1), key=lambda item: item.points))
        _picture([*board.differing, *board.missed], entries[0].options, first.seed)
    return board


def _answers(file: Path) -> dict[str, dict[str, Any]]:
    """Question -> what of its record is compared; without the blind ones."""
    kept = ("family", "question", "target", "group", "answer", "correct")
    with file.open(encoding="utf-8") as lines:
        rows = (row for row in map(json.loads, lines) if row["kind"] == "answer" and not row["blind"] and "answer" in row)
        return {row["id"]: {key: row[key] for key in kept} for row in rows if not row.get("error")}


def _common(entry: _Entry, ids: set[str]) -> EvaluationResult:
    """An entry's numbers on some of its questions, seen and blind. What it could not be asked still says which branches it has.

    Raises:
        ArgusError: a metric needs something that is not there any more.
    """
    metrics = build_metrics(entry.options)
    with entry.file.open(encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        kept = (r for r in rows if r["kind"] != "answer" or r.get("skipped") or r["id"].removesuffix("#blind") in ids)
        return summarise(kept, metrics, 0)


def _varied(items: Iterable[Item]) -> list[Item]:
    """The first few, one family of questions after the other where they are equally telling, and no picture twice."""
    found: list[Item] = []
    rest = list({item.group: item for item in reversed(list(items))}.values())[::-1]
    while rest and len(found) < SHOWN:
        families = Counter(item.family for item in found)
        worst = min(item.points for item in rest)
        chosen = min((item for item in rest if item.points == worst), key=lambda item: families[item.family])
        found.append(chosen)
        rest.remove(chosen)
    return found


def _picture(items: Sequence[Item], options: EvaluationOptions, seed: int) -> None:
    """Gives items their last picture, drawn again as far as the data is still there; groups only as far as they are needed."""
    wanted: dict[str, list[Item]] = {}
    for item in items:
        wanted.setdefault(item.id, []).append(item)
    with suppress(ArgusError):
        for group in build_scenario(options).groups(options.samples, seed):
            for sample in group.samples:
                for item in wanted.pop(sample.id, ()):
                    shown = sample.images()
                    with suppress(ArgusError):
                        item.picture = load_image(shown[-1], where=sample.id) if shown else None
            if not wanted:
                return
