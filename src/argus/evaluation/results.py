"""From records to numbers: what an evaluation found, computed from its records alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from typing import Any
from zlib import crc32

from argus.evaluation.metrics.base import AnswerMetric, CorpusMetric, CostMetric, Row, WholeMetric
from argus.evaluation.statistics import Measurement, agreement, mean, mean_of_means, ratio

ALL, BLIND = "all", "blind"
Metrics = Mapping[str, AnswerMetric | CostMetric]


@dataclass(slots=True)
class EvaluationResult:
    """What an evaluation found.

    Args:
        measurements: metric -> group -> number. Groups are `all`, each question family, each domain if there are
        several, `blind` (asked without pictures), `item` (where several questions form one: the least of their values, so
        that all must be right), a taxonomy's branches (`image` over all its questions, `mean image` over its families, each
        counting the same), an answer metric's own ratios (`precision`), `agreement`, its mean over the true labels
        (`per class`) and `kappa` where its answers are labels, and a cost metric's own parts.
        chance: group -> expected accuracy of a blind guess.
        asked: questions that the scenario gave.
        answered: questions that were answered.
        errors: reason -> questions that could not be read or asked; they count in no number.
        skipped: reason -> questions that this inferencer cannot ask.
        examples: records of some answers, the same questions for every variant.
        seed: which part of the scenario was asked.
        seconds: time spent answering.
        branches: branch -> the families in its averages. A branch with questions that this model cannot be asked has none.
    """

    measurements: dict[str, dict[str, Measurement]]
    chance: dict[str, float]
    asked: int
    answered: int
    errors: dict[str, int]
    skipped: dict[str, int]
    examples: list[dict[str, Any]] = field(default_factory=list)
    seed: int = 0
    seconds: float = 0.0
    branches: dict[str, list[str]] = field(default_factory=dict)

    @property
    def unreadable(self) -> float:
        """Share of the questions that could not be read or asked."""
        return sum(self.errors.values()) / self.asked if self.asked else 0.0

    def value(self, metric: str, group: str = "all") -> float:
        """A measured number."""
        return self.measurements[metric][group].value

    def record(self) -> dict[str, Any]:
        """As plain values, for a result file."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> EvaluationResult:
        """The inverse of `record`."""
        numbers = {m: {g: Measurement(**v) for g, v in row.items()} for m, row in record["measurements"].items()}
        return cls(**{**record, "measurements": numbers})


def summarise(records: Iterable[Mapping[str, Any]], metrics: Metrics, examples: int = 12) -> EvaluationResult:
    """Read records once, in any order, holding only their numbers."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    clusters: dict[tuple[str, str], list[str]] = defaultdict(list)
    guesses: dict[str, list[float]] = defaultdict(list)
    errors: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    shown: list[tuple[int, int, dict[str, Any]]] = []  # a heap of the examples, the next to go first
    asked = answered = seed = 0
    seconds = 0.0
    domains: set[str] = set()
    sums: dict[tuple[str, str], list[tuple[float, float, str]]] = defaultdict(list)  # metric, ratio -> its parts, cluster
    families: dict[tuple[str, str], list[str]] = defaultdict(list)  # metric, branch -> family of each value
    refused: set[str] = set()  # branches of which a part was not asked
    labels: dict[str, list[tuple[str, str, str]]] = defaultdict(list)  # metric -> label given, true label, cluster
    items: dict[tuple[str, str, str], float] = {}  # metric, item, cluster -> the least of its questions' values
    corpora: dict[tuple[str, bool], list[tuple[Any, list[str], str]]] = defaultdict(list)  # metric, blind -> notes
    wholes: dict[tuple[str, bool], list[tuple[str, Row]]] = defaultdict(list)  # metric, blind -> id, what was noted
    for record in records:
        if record["kind"] == "seed":
            seed = record["seed"]
        elif record["kind"] == "cost":
            for metric, parts in record["values"].items():
                for part, value in parts.items():
                    values[metric, part].append(value)
                    clusters[metric, part].append(record["group"])
        elif record["kind"] == "answer":
            blind = record["blind"]
            asked += not blind
            if record.get("error") or record.get("skipped"):
                if not blind:
                    (errors if record.get("error") else skipped)[record.get("error") or record["skipped"]] += 1
                    refused.update(record.get("branches", []) if record.get("skipped") else [])
                continue
            answered += not blind
            seconds += record["seconds"]
            domains.add(record["domain"])
            branches = record.get("branches", [])
            every = ["blind"] if blind else ["all", record["family"], f"domain {record['domain']}", *branches]
            groups = list(dict.fromkeys(every))  # a branch may be called as its only family is
            for metric, value in record["values"].items():
                for group in groups:
                    values[metric, group].append(value)
                    clusters[metric, group].append(record["group"])
                for branch in () if blind else branches:
                    families[metric, branch].append(record["family"])
                if record.get("item") and not blind:
                    key = metric, record["item"], record["group"]
                    items[key] = min(value, items.get(key, value))
            for metric, notes in record.get("notes", {}).items():
                if isinstance(metrics.get(metric), CorpusMetric):
                    corpora[metric, blind].append((notes, groups, record["group"]))
                elif isinstance(metrics.get(metric), WholeMetric):
                    wholes[metric, blind].append((record["id"], Row(notes, groups, record["group"])))
            if not blind:
                for metric, (said, true) in record.get("labels", {}).items():
                    labels[metric].append((said, true, record["group"]))
                for metric, ratios in record.get("ratios", {}).items():
                    for name, (part, whole) in ratios.items():
                        sums[metric, name].append((part, whole, record["group"]))
                for group in groups:
                    guesses[group].append(1 / len(record["options"]) if record["options"] else 0.0)
                # The ids with the least checksums: any variant shows the same questions, whatever it answered.
                heappush(shown, (-crc32(record["id"].encode()), answered, dict(record)))
                if len(shown) > examples:
                    heappop(shown)
    for (metric, _), of_all in corpora.items():
        of_corpus = metrics[metric]
        assert isinstance(of_corpus, CorpusMetric)  # only their notes are kept
        for (_, groups, cluster), value in zip(of_all, of_corpus.over_corpus([notes for notes, _, _ in of_all]), strict=True):
            for group in groups:
                values[metric, group].append(value)
                clusters[metric, group].append(cluster)
    for (metric, _, cluster), value in items.items():
        values[metric, "item"].append(value)
        clusters[metric, "item"].append(cluster)
    drop = ({f"domain {d}" for d in domains} if len(domains) < 2 else set()) | refused
    measurements: dict[str, dict[str, Measurement]] = {name: {} for name in metrics}
    for (metric, group), row in values.items():
        if group not in drop and metric in metrics:
            measurements[metric][group] = metrics[metric].measure(row, clusters[metric, group])
    for (metric, branch), of in families.items():
        if branch not in refused and isinstance(of_branch := metrics.get(metric), AnswerMetric):
            parts_of = values[metric, branch], of, clusters[metric, branch]
            measurements[metric][f"mean {branch}"] = of_branch.over_families(*parts_of)
    for (metric, name), parts in sums.items():
        if isinstance(of_answers := metrics.get(metric), AnswerMetric):
            above, below, owners = zip(*parts, strict=True)
            measurements[metric][name] = ratio(above, below, owners, of_answers.ratio_unit(name))
    for metric, rows in labels.items():
        if metric in metrics:
            _, kappa = agreement((said, true) for said, true, _ in rows)
            measurements[metric]["agreement"] = mean([float(a == b) for a, b, _ in rows], [owner for *_, owner in rows])
            measurements[metric]["kappa"] = Measurement(kappa, math.nan, math.nan, len(rows), "")
            equal, true_labels, owners = zip(*((float(said == true), true, owner) for said, true, owner in rows), strict=True)
            measurements[metric]["per class"] = mean_of_means(equal, true_labels, owners)
    for (metric, unseen), told in wholes.items():
        of_all_ = metrics[metric]
        assert isinstance(of_all_, WholeMetric)  # only their notes are kept
        numbers = of_all_.over_all([row for _, row in sorted(told, key=lambda one: one[0])])
        measurements[metric].update({BLIND: numbers[ALL]} if unseen else {g: m for g, m in numbers.items() if g not in drop})
    for name, metric_ in metrics.items():
        measurements[name].setdefault("all", metric_.measure([], []))
    return EvaluationResult(
        measurements=measurements,
        chance={g: sum(c) / len(c) for g, c in guesses.items() if g not in drop},
        asked=asked,
        answered=answered,
        errors=dict(errors),
        skipped=dict(skipped),
        examples=[record for _, _, record in sorted(shown, key=lambda row: row[2]["id"])],
        seed=seed,
        seconds=seconds,
        branches={branch: sorted(set(of)) for (_, branch), of in families.items() if branch not in refused},
    )
