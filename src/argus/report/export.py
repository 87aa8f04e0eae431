"""A finished run in the layouts of other toolkits, for scripts that read those. Written from the records, line by line.

    lmms-eval    OUT/<variant>/<date>_results.json, <date>_samples_<task>.jsonl     one JSON object per question
    vlmevalkit   OUT/<variant>/<variant>_<dataset>.tsv, <variant>_<dataset>_acc.csv one row per question; scores per category

A variant is their model, an evaluation their task or dataset; what was asked without pictures is one of its own, `<task>_blind`.
Questions that could not be asked or answered have no row there: both formats would count them as wrong. Their number is the
difference of `original` and `effective` in lmms-eval's `n-samples`.

lmms-eval writes losses, so a scored option is [-score, chosen]. Standard errors are half a 95 % interval / 1.96. VLMEvalKit's
multiple-choice rows hold letters; `prediction` is the letter where options were scored, else what the model wrote.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from argus.core.errors import DataError, UnsupportedError
from argus.core.run import Run
from argus.evaluation.results import EvaluationResult
from argus.report.summary import ALL, BLIND, Summary

Record = dict[str, Any]


def export(folder: Path, layout: str, out: Path) -> list[Path]:
    """Write a run's answers and numbers as another toolkit does.

    Args:
        folder: a finished run.
        layout: `lmms-eval` or `vlmevalkit`.
        out: where the files go.

    Returns:
        The files, in the order written.

    Raises:
        UnsupportedError: there is no such layout.
        DataError: the run is not finished.
    """
    if layout not in LAYOUTS:
        raise UnsupportedError(f"there is no layout '{layout}'", hint=f"Known: {', '.join(LAYOUTS)}")
    run, summary = Run.open(folder), Summary.load(folder)
    files: list[Path] = []
    for variant in (v.name for v in summary.variants):
        (out / variant).mkdir(parents=True, exist_ok=True)
        files += LAYOUTS[layout](run, summary, variant, out / variant)
    return files


def _tasks(
    run: Run, summary: Summary, variant: str
) -> Iterator[tuple[str, bool, EvaluationResult, Callable[[], Iterator[Record]]]]:
    """Name, whether it is blind, numbers, and the answers of each task of a variant."""
    for evaluated in summary.evaluated:
        part = f"{variant}.{evaluated.name}"
        stored = run.read_json(f"results/{part}.json")
        file = run.folder / "records" / f"{part}.jsonl"
        if not stored or not file.exists():
            raise DataError(f"there is no '{part}' in this run", where=str(run.folder))
        result = EvaluationResult.from_record(stored["result"])
        for blind in (False, True):
            if not blind or any(BLIND in groups for groups in result.measurements.values()):
                name = f"{evaluated.name}_blind" if blind else evaluated.name
                yield name, blind, result, lambda file=file, blind=blind: _answers(file, blind)  # type: ignore[misc]


def _answers(file: Path, blind: bool) -> Iterator[Record]:
    with file.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["kind"] == "answer" and record["blind"] == blind and "answer" in record and not record.get("error"):
                yield record


def lmms_eval(run: Run, summary: Summary, variant: str, out: Path) -> Iterator[Path]:
    """lmms-eval 0.7's files of one variant."""
    date = summary.finished.replace("-", "").replace(":", "").replace(" ", "_")
    found: dict[str, dict[str, Any]] = {
        key: {} for key in ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
    }
    better = {evaluated.name: evaluated.better for evaluated in summary.evaluated}
    for name, blind, result, answers in _tasks(run, summary, variant):
        samples = out / f"{date}_samples_{name}.jsonl"
        effective = 0
        with samples.open("w", encoding="utf-8") as file:
            for effective, record in enumerate(answers(), start=1):
                file.write(json.dumps(_sample(effective - 1, record), ensure_ascii=False) + "\n")
        yield samples
        measured = {metric: groups.get(BLIND if blind else ALL) for metric, groups in result.measurements.items()}
        numbers: dict[str, Any] = {"alias": name}
        for metric, m in measured.items():
            if m is not None and m.n:
                numbers[f"{metric},none"] = m.value
                numbers[f"{metric}_stderr,none"] = (m.high - m.low) / 2 / 1.96 if not math.isnan(m.low) else "N/A"
        found["results"][name] = numbers
        found["group_subtasks"][name] = []
        found["configs"][name] = {"task": name, "metadata": {"seed": result.seed}}
        found["versions"][name], found["n-shot"][name] = "Yaml", 0
        found["higher_is_better"][name] = {m: way == "higher" for m, way in better[name.removesuffix("_blind")].items()}
        found["n-samples"][name] = {"original": result.asked, "effective": effective}
    changes = next(v.changes for v in summary.variants if v.name == variant)
    found["config"] = {"model": variant, "model_args": f"{summary.model}; {changes}" if changes else summary.model}
    results = out / f"{date}_results.json"
    whole = {
        **found,
        "git_hash": summary.environment.get("commit"),
        "date": date,
        "total_evaluation_time_seconds": summary.seconds,
    }
    results.write_text(json.dumps(whole, indent=2, ensure_ascii=False), encoding="utf-8")
    yield results


def _sample(number: int, record: Record) -> Record:
    """One line of a samples file."""
    asked = {key: record[key] for key in ("id", "question", "options", "target")}
    if scores := record.get("option_scores"):
        best = scores.index(max(scores))
        said: Any = [[str(-score), str(i == best)] for i, score in enumerate(scores)]
    else:
        said = record["extracted"] or record["answer"]
    sample = {
        "doc_id": number,
        "target": str(record["target"]),
        "filtered_resps": said,
        "doc_hash": hashlib.sha256(json.dumps(asked, indent=2, ensure_ascii=False).encode()).hexdigest(),
        "input": record["question"],
        "argus_id": record["id"],
        **record["values"],
    }
    return sample if scores or said == record["answer"] else {**sample, "resps": [record["answer"]]}


def vlmevalkit(run: Run, summary: Summary, variant: str, out: Path) -> Iterator[Path]:
    """VLMEvalKit's files of one variant; tables are TSV, which it reads as well as its spreadsheets."""
    for name, _, _, answers in _tasks(run, summary, variant):
        letters = ascii_uppercase[: max((len(record["options"]) for record in answers()), default=0)]
        columns = ["index", "question", *letters, "answer", "category", "id", "prediction", "hit"]
        hits: dict[str, list[float]] = {}
        table = out / f"{variant}_{name}.tsv"
        with table.open("w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
            rows.writeheader()
            for number, record in enumerate(answers()):
                row = _row(number, record)
                rows.writerow(row)
                if row["hit"] is not None:
                    hits.setdefault(row["category"], []).append(row["hit"])
        yield table
        means = {"split": "none", "Overall": _mean([hit for of in hits.values() for hit in of])}
        means |= {category: _mean(of) for category, of in hits.items()}
        scores = out / f"{variant}_{name}_acc.csv"
        with scores.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([means.keys(), means.values()])
        yield scores


def _row(number: int, record: Record) -> Record:
    letters = dict(zip(record["options"], ascii_uppercase, strict=False))
    if len(record["options"]) > len(ascii_uppercase):
        raise UnsupportedError("VLMEvalKit's tables hold at most 26 options", where=record["id"])
    scored = bool(record.get("option_scores"))
    return {
        "index": number,
        "question": record["question"],
        **{letter: option for option, letter in letters.items()},
        "answer": letters.get(record["target"], record["target"]),
        "category": record["family"],
        "id": record["id"],
        "prediction": letters[record["answer"]] if scored else record["answer"],
        "hit": record["correct"],
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


LAYOUTS: dict[str, Callable[[Run, Summary, str, Path], Iterator[Path]]] = {"lmms-eval": lmms_eval, "vlmevalkit": vlmevalkit}
