"""CV-Bench's score (Cambrian-1, arXiv 2406.16860), as OLA-VLM (arXiv 2412.09585) reports it.

    2D = (accuracy on ADE20K + accuracy on COCO) / 2,  3D = accuracy on Omni3D,  score = (2D + 3D) / 2

`cv_bench` is the score; `cv_bench[2D]`, `[3D]`, `[ADE20K]`, `[COCO]`, `[Omni3D]` and each task, `[Count]`, are there too. A
number whose pictures were not asked about is none, and neither is one that is made of it.

An answer is read as published: the first capital letter in brackets where it has a bracket, else its first character. Where there
is a bracket and no letter in any, the published loop scores the answer before it again; here the answer is wrong.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import NoOptions, Row, Score, WholeMetric
from argus.evaluation.statistics import Z95, Measurement

IN_BRACKETS = re.compile(r"\(([A-Z])\)")
PARTS = {"2D": {"ADE20K": 0.5, "COCO": 0.5}, "3D": {"Omni3D": 1.0}}
WHOLE = {source: weight / len(PARTS) for part in PARTS.values() for source, weight in part.items()}


def chosen(text: str) -> str:
    """The option in brackets that an answer names; nothing where it names none."""
    if "(" in text:
        found = IN_BRACKETS.search(text)
        return found.group() if found else ""
    return f"({text.strip()[:1]})"


class CVBenchScore(WholeMetric):
    """Mean of 2D and 3D."""

    Options = NoOptions

    def applies(self, sample: Sample) -> bool:
        return sample.metadata.get("from") in WHOLE

    def score(self, sample: Sample, answer: Answer) -> Score:
        said = chosen(answer.text)
        known = {"from": sample.metadata["from"], "task": sample.metadata["family"]}
        return Score(None, said, notes={**known, "right": said == sample.target})

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        by_source = {source: [row for row in rows if row.notes["from"] == source] for source in WHOLE}
        tasks = {task: [row for row in rows if row.notes["task"] == task] for task in sorted({r.notes["task"] for r in rows})}
        found = {name: weighted({name: of}, {name: 1.0}) for name, of in [*by_source.items(), *tasks.items()] if of}
        for name, weights in [*PARTS.items(), ("all", WHOLE)]:
            if name == "all" or all(by_source[source] for source in weights):
                found[name] = weighted({source: by_source[source] for source in weights}, weights)
        return found


def weighted(parts: Mapping[str, Sequence[Row]], weights: Mapping[str, float]) -> Measurement:
    """A weighted sum of accuracies; NaN where a part is empty. Its interval is clustered by picture."""
    count = sum(map(len, parts.values()))
    if not all(parts.values()):
        return Measurement(math.nan, math.nan, math.nan, count, "share")
    accuracy = {name: sum(row.notes["right"] for row in rows) / len(rows) for name, rows in parts.items()}
    value = sum(weights[name] * accuracy[name] for name in parts)
    residuals: defaultdict[str, float] = defaultdict(float)
    for name, rows in parts.items():
        for row in rows:
            residuals[row.cluster] += weights[name] / len(rows) * (row.notes["right"] - accuracy[name])
    half = Z95 * math.sqrt(sum(r * r for r in residuals.values()))
    return Measurement(value, value - half, value + half, count, "share")
