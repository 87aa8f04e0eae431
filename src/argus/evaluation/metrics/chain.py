"""How deep a chain of classes is right (ChEF on Omnibenchmark, arXiv 2311.02692): animal -> bird -> owl.

    weighted accuracy = deepest right level / levels        mean over pictures; a right leaf is 1, whatever stands above it

Turns of one item each decide a level (metadata `level` from 1, `levels`); an answer to a question about the whole chain
(metadata `chain`, from the root) decides all levels at once: those whose name occurs in it. `chain[level 2]` is the accuracy of
a level's turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import NoOptions, Row, Score, WholeMetric
from argus.evaluation.metrics.normalise import text_1
from argus.evaluation.metrics.words import has_word
from argus.evaluation.statistics import Measurement, mean


class Chain(WholeMetric):
    """Weighted accuracy."""

    Options = NoOptions

    def applies(self, sample: Sample) -> bool:
        return "chain" in sample.metadata or "level" in sample.metadata

    def score(self, sample: Sample, answer: Answer) -> Score:
        known = sample.metadata
        if "level" in known:
            right, levels = text_1(answer.text) == text_1(sample.target or ""), known["levels"]
            named = [known["level"]] if right else []
            notes = {"turn": known["level"], "right": float(right)}
        else:
            levels = len(known["chain"])
            named = [n for n, name in enumerate(known["chain"], start=1) if has_word(answer.text, name)]
            notes = {}
        return Score(
            None, answer.text, notes={**notes, "item": known.get("item", sample.id), "depth": max(named, default=0) / levels}
        )

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        deepest: dict[tuple[str, str], float] = {}
        turns: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for row in rows:
            key = row.cluster, row.notes["item"]
            deepest[key] = max(row.notes["depth"], deepest.get(key, 0.0))
            if "turn" in row.notes:
                turns[f"level {row.notes['turn']}"].append((row.notes["right"], row.cluster))
        return {
            "all": mean(list(deepest.values()), [cluster for cluster, _ in deepest]),
            **{name: mean([v for v, _ in of], [c for _, c in of]) for name, of in sorted(turns.items())},
        }
