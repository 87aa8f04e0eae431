"""TouchStone's hallucination score of descriptions (arXiv 2308.16890): what of a description does the picture's own contradict?

A language model holds a description written by the model under test against the fine-grained one written by people, and says from
1 (nothing is made up) to 10 (all of it) how much the first claims without support; less is better. Questions other than
descriptions are not judged. The published prompt is not known to us; this one's words are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from argus.core.sample import Sample
from argus.evaluation.judges.asked import Request, UnreadableError, Verdict
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions


class HallucinationOptions(JudgeOptions):
    """Options of the judge."""

    category: str = Field("Basic Descript", description="items are judged whose category begins so")


class Hallucination(Judge):
    """Grades what is made up."""

    Options = HallucinationOptions
    options: HallucinationOptions
    name = "hallucination"
    unit = "points"
    better = "lower"
    fields = ("description", "question", "answer")

    def applies(self, sample: Sample) -> bool:
        """Descriptions of what is known."""
        kind = str(sample.metadata.get("category", ""))
        return kind.startswith(self.options.category) and bool(sample.metadata.get("description"))

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        told = sample.metadata["description"]
        user = self.filled("user", description=told, question=sample.messages[-1].text(), answer=answer)
        return [Request(sample.id, self.messages(user), (answer,), tuple(sample.metadata.get("facts") or (told,)))]

    def read(self, reply: str) -> float:
        line = reply.split("\n", 1)[0].strip()
        if not re.fullmatch(r"\d+(\.\d+)?", line) or not 1 <= float(line) <= 10:
            raise UnreadableError(f"'{line[:80]}' is no number from 1 to 10")
        return float(line)

    def spoken(self, grades: Sequence[float]) -> str:
        return f"{10 - 9 * min(1.0, grades[0]):.6g}\nBy rule."

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        (verdict,) = verdicts
        label = None if verdict.value is None else str(round(verdict.value))
        return Judgement(verdict.value, label, {"unreadable": (float(verdict.value is None), 1.0)}, verdicts)
