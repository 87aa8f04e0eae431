"""One label per answer, held against the right answer: "correct" or "incorrect", or whatever labels and prompt you give.

    judge: {of: {grade: {model: "openai:<name>@<base-url>", labels: {right: 1, partly: 0.5, wrong: 0}}}}

The reply ends in a dictionary with `reason` and `verdict`; a verdict that is none of the labels is unreadable.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from argus.core.sample import Sample
from argus.evaluation.judges.asked import Request, UnreadableError, Verdict
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions, dictionary


class GradeOptions(JudgeOptions):
    """Options of the judge."""

    labels: dict[str, float] = Field(
        {"correct": 1.0, "incorrect": 0.0}, min_length=2, description="what the judge may say, and what it is worth"
    )
    pictures: bool = Field(False, description="show the judge what the model saw")


class Grade(Judge):
    """Labels answers."""

    Options = GradeOptions
    options: GradeOptions
    name = "grade"
    fields = ("question", "target", "answer", "labels")

    def applies(self, sample: Sample) -> bool:
        """Anything with a right answer."""
        return sample.target is not None

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        target = sample.target or ""
        labels = ", ".join(self.options.labels)
        asked = sample.messages[-1].text()
        user = self.filled("user", question=asked, target=target, answer=answer, labels=labels)
        shown = sample.images() if self.options.pictures else ()
        return [Request(sample.id, self.messages(user, shown), (answer,), tuple(sample.metadata.get("facts") or (target,)))]

    def read(self, reply: str) -> str:
        verdict = str(dictionary(reply).get("verdict", "")).strip()
        if verdict not in self.options.labels:
            raise UnreadableError(f"'{verdict[:80]}' is none of {', '.join(self.options.labels)}")
        return verdict

    def spoken(self, grades: Sequence[float]) -> str:
        labels = self.options.labels
        low, high = min(labels.values()), max(labels.values())
        meant = low + (high - low) * grades[0]
        nearest = min(labels, key=lambda label: (abs(labels[label] - meant), labels[label]))  # halfway is not enough
        return str({"reason": "by rule", "verdict": nearest})

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        (verdict,) = verdicts
        value = None if verdict.value is None else self.options.labels[verdict.value]
        return Judgement(value, verdict.value, {"unreadable": (float(value is None), 1.0)}, verdicts)

    def worth(self, label: str) -> float:
        return self.options.labels[label]
