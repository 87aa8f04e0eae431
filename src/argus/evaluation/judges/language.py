"""Language performance (ChEF, arXiv 2311.02692): how well does a model put its reasons into words?

    question, right option, thought up to its last period, final choice  ->  "[Overall Score] number", 0 to 10, asked six times
    an item's score = 10 times the mean of its six; the measurement is the mean over items, 0 to 100

The judge sees no picture, and is told to take for true what the thought says about it: it grades how well the thought is worded
and argued. The answer is a thought with the choice on its last line, which {chain_of_thought: {official: true}} gives. The six
are samples of one request, so an endpoint should be asked at a temperature above 0; replies that hold no score are left
out of an item's mean, and counted in `judge[unreadable]`. The paper's items are 250 of ScienceQA ({scienceqa: {drawn: 250}}).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from argus.core.sample import Sample
from argus.evaluation.judges.asked import Request, UnreadableError, Verdict
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions

BEST = 10
_SCORE = re.compile(r"\[Overall Score\]\D{0,3}(\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Again(Request):
    """A request that is asked several times: `turn` tells the times apart."""

    turn: int = 0

    def digest(self) -> str:
        return f"{super().digest()}/{self.turn}"


class LanguageOptions(JudgeOptions):
    """Options of the judge."""

    times: int = Field(6, ge=1, le=100, description="how often each answer is judged")


class Language(Judge):
    """Grades thoughts."""

    Options = LanguageOptions
    options: LanguageOptions
    name = "language"
    unit = "points"
    fields = ("question", "target", "thought", "choice")

    def applies(self, sample: Sample) -> bool:
        """Anything with a right answer."""
        return sample.target is not None

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        thought, _, choice = answer.rpartition("\n")
        cut = thought[: thought.rfind(".") + 1] or thought
        texts = {"question": sample.messages[-1].text(), "target": sample.target or "", "thought": cut, "choice": choice}
        messages = self.messages(self.filled("user", **texts))
        known = tuple(sample.metadata.get("facts") or (sample.target or "",))
        return [Again(f"{sample.id}/{turn}", messages, (answer,), known, turn) for turn in range(self.options.times)]

    def read(self, reply: str) -> float:
        found = _SCORE.search(reply)
        if not found or float(found[1]) > BEST:
            raise UnreadableError("there is no '[Overall Score]' with a number from 0 to 10")
        return float(found[1])

    def spoken(self, grades: Sequence[float]) -> str:
        return f"[Overall Score] {BEST * grades[0]:g}"

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        scores = [verdict.value for verdict in verdicts if verdict.value is not None]
        value = 100 / BEST * sum(scores) / len(scores) if scores else None
        bad = float(len(verdicts) - len(scores))
        return Judgement(value, None if value is None else f"{value:g}", {"unreadable": (bad, float(len(verdicts)))}, verdicts)
