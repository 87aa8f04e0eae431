"""Records of an evaluation: where they are kept, and what they say.

One record per question: what was asked, what was answered and what each metric made of it, or why there is no answer. Every
number of a result is computed from records alone (`argus.evaluation.results`), so what a metric needs has to be in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from argus.core.errors import DataError
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.metrics.base import AnswerMetric, Score
from argus.evaluation.results import Metrics


class Records(Protocol):
    """An append-only store of records with unique ids."""

    def done_ids(self) -> set[str]:
        """Ids of all complete records."""
        ...

    def write(self, record: dict[str, Any]) -> None:
        """Append a record; it survives the process."""
        ...

    def records(self) -> Iterator[dict[str, Any]]:
        """All complete records, in the order written."""
        ...


@dataclass(slots=True)
class MemoryRecords:
    """Records of an evaluation that nobody wants to resume."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def done_ids(self) -> set[str]:
        return {row["id"] for row in self.rows}

    def write(self, record: dict[str, Any]) -> None:
        self.rows.append(record)

    def records(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def record_id(sample: Sample, blind: bool) -> str:
    """The id of a question's record; asked without its pictures it has one of its own."""
    return f"{sample.id}#blind" if blind else sample.id


def record_of(sample: Sample, group: str, blind: bool, **found: Any) -> dict[str, Any]:
    """A record: what was asked, and what was found."""
    return {
        "id": record_id(sample, blind),
        "kind": "answer",
        "blind": blind,
        "group": group,
        "family": str(sample.metadata.get("family", "other")),
        "domain": str(sample.metadata.get("domain", "other")),
        "picture": str(sample.metadata.get("picture", group)),
        "item": sample.metadata.get("item"),
        "branches": sample.metadata.get("branches", []),
        "question": sample.messages[-1].text() if sample.messages else None,
        "options": sample.options,
        "target": sample.target,
        **found,
    }


def scored(
    metrics: Metrics, questions: Sequence[Question], answers: Sequence[Answer], seconds: float, blind: bool
) -> list[dict[str, Any]]:
    """The records of answers; each metric scores all that it applies to at once.

    A batch with a question that a metric cannot score is scored question by question; that one's record has the error
    beside its answer. A judge that cannot be asked at all is no such error and ends the run.
    """
    try:
        scores = _scores(metrics, questions, answers)
    except DataError as error:
        if len(questions) > 1:
            alone = zip(questions, answers, strict=True)
            return [record for q, a in alone for record in scored(metrics, [q], [a], seconds, blind)]
        return [{**_answered(questions[0], answers[0], {}, seconds, blind), "error": f"{type(error).__name__}: {error}"}]
    return [_answered(*one, seconds, blind) for one in zip(questions, answers, scores, strict=True)]


def _scores(metrics: Metrics, questions: Sequence[Question], answers: Sequence[Answer]) -> list[dict[str, Score]]:
    """Metric -> score, for each answer."""
    scores: list[dict[str, Score]] = [{} for _ in questions]
    for name, metric in metrics.items():
        if isinstance(metric, AnswerMetric):
            of = [i for i, q in enumerate(questions) if not answers[i].skipped and metric.applies(q.sample)]
            found = metric.scores([questions[i].sample for i in of], [answers[i] for i in of]) if of else []
            for i, score in zip(of, found, strict=True):
                scores[i][name] = score
    return scores


def _answered(question: Question, answer: Answer, scores: dict[str, Score], seconds: float, blind: bool) -> dict[str, Any]:
    """The record of an answer."""
    sample = question.sample
    if answer.skipped:
        return record_of(sample, question.group, blind, skipped=answer.skipped)
    first = next(iter(scores.values()), None)
    return record_of(
        sample,
        question.group,
        blind,
        answer=answer.text,
        option_scores=answer.scores,
        tokens=answer.tokens,
        extracted=first.extracted if first else None,
        correct=first.value if first else None,
        values={name: s.value for name, s in scores.items() if s.value is not None},
        ratios={name: s.ratios for name, s in scores.items() if s.ratios},
        labels={name: s.labels for name, s in scores.items() if s.labels},
        notes={name: s.notes for name, s in scores.items() if s.notes},
        seconds=seconds,
        **answer.notes,
    )
