"""MMDU: A Multi-Turn Multi-Image Dialog Understanding Benchmark and Instruction-Tuning Dataset for LVLMs (arXiv 2406.11833).

Every turn of a dialogue is graded by itself against its reference answer: six qualities and an overall score, 1 to 10 each, which
end the reply as a dictionary. Numbers are means over turns, not over dialogues, times ten:

    score_d = 10 * sum over readable turns of d / readable turns

The headline is the judge's own overall score (the table's "Avg"), not the mean of the six. `... (failures 0)` counts what could
not be read as 0. A dictionary is read as a literal, never run.

`mode: official` reads a turn only if all seven numbers are there. The released script tests for six and then adds them before it
fails at the seventh, so its means of such files are too high; here such a turn changes nothing. `mode: toolkit` follows
VLMEvalKit: each number by itself, clipped to 0..10 and cut to a whole one. The official judge sees all pictures of the dialogue,
the toolkit's none (`pictures: false`); their numbers differ, so the recipe says which it was. The rubric's words are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from argus.core.sample import Sample
from argus.evaluation.judges.asked import Request, UnreadableError, Verdict
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions, dictionary

QUALITIES = (
    "Creativity",
    "Richness",
    "Visual Perception",
    "Logical Coherence",
    "Answer Accuracy",
    "Image Relationship Understanding",
)
OVERALL = "Overall Score"
SCALE = 10.0  # a judge's point in the benchmark's


class MMDUOptions(JudgeOptions):
    """Options of the judge."""

    tries: int = Field(3, ge=1, le=20, description="most times a reply that cannot be read is asked for")
    max_new_tokens: int = Field(4096, ge=1, le=8192, description="longest reply in tokens")
    mode: Literal["official", "toolkit"] = Field("official", description="turns that are whole, or each number by itself")
    pictures: bool = Field(True, description="show the judge all pictures of the dialogue")


class MMDU(Judge):
    """Grades turns."""

    Options = MMDUOptions
    options: MMDUOptions
    name = "mmdu"
    unit = "points"
    fields = ("question", "reference", "answer")

    def applies(self, sample: Sample) -> bool:
        """Turns with a reference answer."""
        return sample.target is not None

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        reference = sample.target or ""
        user = self.filled("user", question=sample.messages[-1].text(), reference=reference, answer=answer)
        shown = sample.metadata.get("pictures", sample.images()) if self.options.pictures else ()
        return [Request(sample.id, self.messages(user, shown), (answer,), tuple(sample.metadata.get("facts") or (reference,)))]

    def read(self, reply: str) -> dict[str, float]:
        given = dictionary(reply)
        found = {name: float(given[name]) for name in (*QUALITIES, OVERALL) if _is_number(given.get(name))}
        if self.options.mode == "toolkit" and found:
            return {name: float(int(min(10.0, max(0.0, v)))) for name, v in found.items()}
        if missing := [name for name in (*QUALITIES, OVERALL) if name not in found]:
            raise UnreadableError(f"there is no number for {', '.join(missing)}")
        return found

    def spoken(self, grades: Sequence[float]) -> str:
        points = round(1 + 9 * min(1.0, grades[0]))
        return f"By rule.\n{dict.fromkeys((*QUALITIES, OVERALL), points)}"

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        (verdict,) = verdicts
        found: dict[str, float] = verdict.value or {}
        ratios = {"unreadable": (float(verdict.value is None), 1.0)}
        for name in (*QUALITIES, OVERALL):
            ratios |= {f"{name} (failures 0)": (SCALE * found.get(name, 0.0), 1.0)}
            ratios |= {name: (SCALE * found[name], 1.0)} if name in found else {}
        overall = found.get(OVERALL)
        if overall is None:
            return Judgement(None, None, ratios, verdicts)
        return Judgement(SCALE * overall, str(round(overall)), ratios, verdicts)

    def worth(self, label: str) -> float:
        return SCALE * float(label)

    def ratio_unit(self, name: str) -> str:
        return "share" if name == "unreadable" else self.unit


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
