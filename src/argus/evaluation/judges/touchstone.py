"""TouchStone: Evaluating Vision-Language Models by Language Models (arXiv 2308.16890).

A language model that sees no picture compares an answer with a reference answer; a fine-grained description H, written by people,
stands in the picture's place. Each pair is shown twice, with positions swapped, and each answer gets 1 to 10 both times.

    round 1: assistant 1 = reference, 2 = model        round 2: assistant 1 = model, 2 = reference
    score(model) = 100 * mean of the model's points over all readable rounds        (100 to 1000; the reference's is the control)

Means are over rounds, not over items, so an item with one unreadable round counts once; an item of several categories counts in
each. Beside them: the reference's score, the win rate against it by rounds, the position bias |score in round 1 - in round 2|
and the share of unreadable rounds.

The verdict is the reply's first line, the two numbers with exactly one space between them; `parser: tolerant` takes the first two
numbers of that line instead, and its scores are not to be compared with published ones. The published code stops the judge at the
first newline; here what follows it is ignored, which gives the same scores and keeps the reason. It waits five seconds between
its five attempts; here an endpoint's own back-off does the waiting. The prompt's words are ours: `prompt: FILE` puts others in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from argus.core.sample import Message, Sample
from argus.evaluation.judges.asked import Request, UnreadableError, Verdict
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions

POINTS = 100.0  # a judge's point in the benchmark's


class PairOptions(JudgeOptions):
    """Options of both judges."""

    parser: Literal["official", "tolerant"] = Field("official", description="how strictly the line of scores is read")


class TouchStoneOptions(PairOptions):
    """Options of the judge."""

    description: bool = Field(True, description="tell what the picture shows; without it this is a control, not TouchStone")


class TouchStoneSeen(Judge):
    """Compares an answer with the reference, both ways round, and sees the pictures: another measure than TouchStone."""

    Options: ClassVar[type[PairOptions]] = PairOptions
    options: PairOptions
    name = "touchstone_seen"
    unit = "points"
    fields: ClassVar[Sequence[str]] = ("question", "first", "second")

    def applies(self, sample: Sample) -> bool:
        """A reference answer and pictures."""
        return sample.target is not None and bool(sample.images())

    def messages_of(self, sample: Sample, **shown: str) -> list[Message]:
        """What is sent about two answers."""
        return self.messages(self.filled("user", **shown), sample.images())

    @property
    def tells(self) -> bool:
        """Whether the judge is told what the pictures show."""
        return True

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        reference = sample.target or ""
        known = tuple(sample.metadata.get("facts") or (reference,)) if self.tells else None
        question = sample.messages[-1].text()
        made = []
        for turn, pair in enumerate(((reference, answer), (answer, reference)), start=1):
            sent = self.messages_of(sample, question=question, first=pair[0], second=pair[1])
            made.append(Request(f"{sample.id}/round {turn}", sent, pair, known))
        return made

    def read(self, reply: str) -> list[float]:
        line = reply.split("\n", 1)[0].strip()
        found = re.findall(r"\d+(?:\.\d+)?", line)[:2] if self.options.parser == "tolerant" else line.split(" ")
        if len(found) != 2:
            raise UnreadableError(f"'{line[:80]}' is not two numbers with one space between them")
        try:
            scores = [float(text) for text in found]
        except ValueError:
            raise UnreadableError(f"'{line[:80]}' is not two numbers") from None
        if not all(map(math.isfinite, scores)):
            raise UnreadableError(f"'{line[:80]}' is not two numbers")
        return scores

    def spoken(self, grades: Sequence[float]) -> str:
        return " ".join(f"{1 + 9 * grade:.6g}" for grade in grades) + "\nBy rule."

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        rounds = [v.value if turn == 0 else v.value[::-1] for turn, v in enumerate(verdicts) if v.value is not None]
        unreadable = float(len(verdicts) - len(rounds))
        ratios = {"unreadable": (unreadable, float(len(verdicts)))}
        if not rounds:
            return Judgement(None, None, ratios, verdicts)
        count = float(len(rounds))
        reference, model = (sum(scores) for scores in zip(*rounds, strict=True))
        names = dict.fromkeys(["all", *categories(sample), str(sample.metadata.get("family", "other"))])
        ratios |= dict.fromkeys(names, (POINTS * model, count))
        ratios |= {f"reference: {name}" if name != "all" else "reference": (POINTS * reference, count) for name in names}
        ratios["win rate"] = (sum((b > a) + 0.5 * (a == b) for a, b in rounds), count)
        if len(rounds) == 2:
            ratios["position bias"] = (abs(rounds[0][1] - rounds[1][1]), 1.0)
        label = "model" if model > reference else "reference" if model < reference else "tie"
        return Judgement(POINTS * model / count, label, ratios, verdicts)

    def worth(self, label: str) -> float:
        """A vote is a win, a tie or a loss."""
        return {"model": 1.0, "tie": 0.5, "reference": 0.0}[label]

    @property
    def vote_unit(self) -> str:
        return "share"

    def ratio_unit(self, name: str) -> str:
        return "share" if name in ("unreadable", "win rate") else self.unit


class TouchStone(TouchStoneSeen):
    """Reads a description in the picture's place."""

    Options = TouchStoneOptions
    options: TouchStoneOptions
    name = "touchstone"
    fields = ("description", "shown", "question", "first", "second")

    def applies(self, sample: Sample) -> bool:
        """A reference answer and a description to go by."""
        return sample.target is not None and bool(sample.metadata.get("description"))

    def messages_of(self, sample: Sample, **shown: str) -> list[Message]:
        told = self.filled("description", description=sample.metadata["description"]) if self.tells else ""
        return self.messages(self.filled("user", shown=told, **shown))

    @property
    def tells(self) -> bool:
        return self.options.description


def categories(sample: Sample) -> list[str]:
    """The categories that an item counts in: several are separated by commas."""
    return [name.strip() for name in str(sample.metadata.get("category", "")).split(",") if name.strip()]
