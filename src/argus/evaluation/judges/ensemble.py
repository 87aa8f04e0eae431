"""Right or wrong by the majority of five prompts: Tiny LVLM-eHub's ensemble evaluation (arXiv 2308.03729).

    p1 .. p5 -> reply_k -> score_k in {1, 0, -1}      score = most frequent of the five; of equally frequent ones the first given
    accuracy = #1 / N      accuracy without bugs = #1 / (N - #-1)      bugs: answers whose score is -1, which cannot be read

A judge reads question, right answer and answer given; it sees no picture. `judge` is the accuracy, beside it stand
`judge[without bugs]`, `judge[bugs]` (their share; times n their number) and `judge[unanimous]` (five equal scores). The five
share what is right (same meaning) and wrong (another one, or a mixture); p1 to p3 forgive explanations, p4 and p5 do not
forgive wrong ones.

Parsers. `official`: a reply has the key of its prompt, as written or in lower case; of the text between its first and its
second occurrence, 0 if there is a "0" in it, else 1 if there is a "1", else -1. So "Most Likely Score: 1. Confidence 10" is
0, and "Most likely score: 1" cannot be read. `strict` takes the first whole number behind the key, in any case, and -1 where
it is neither 0 nor 1.

The paper asks gpt-3.5-turbo at temperature 0.5, and again until it replies; here a request that failed is -1 like one that
cannot be read, and each request's reply is kept, so that a later run asks for nothing twice. `voters` lets others than one
model speak.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from argus.core.sample import Sample
from argus.evaluation.judges.asked import Asked, Request, Verdict, check_reference
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions, digest
from argus.evaluation.metrics.words import golds

KEYS = ("Most Likely Score", "Final Score", "Final Assessment Score", "Final Score", "Most Likely Score")  # of p1 to p5
UNREAD = -1


class EnsembleOptions(JudgeOptions):
    """Options of the judge."""

    voters: list[str] = Field(
        default_factory=list, max_length=len(KEYS), description="who answers p1, p2, ... in place of `model`; `model` the rest"
    )
    parser: Literal["official", "strict"] = Field("official", description="how a score is read out of a reply")


class Ensemble(Judge):
    """Asks five times and counts."""

    Options = EnsembleOptions
    options: EnsembleOptions
    name = "ensemble"
    fields = ("question", "target", "answer", "rules")

    def __init__(self, options: EnsembleOptions) -> None:
        super().__init__(options)
        voices = {options.model: self.asked}
        for voter in options.voters:
            check_reference(voter)
            own = options.model_copy(update={"model": voter})
            voices.setdefault(voter, Asked(self.name, self.version, digest(self.prompt), own))
        self.voices = [voices[voter] for voter in [*options.voters, *[options.model] * len(KEYS)][: len(KEYS)]]

    def applies(self, sample: Sample) -> bool:
        """Anything with a right answer."""
        return sample.target is not None

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        right = golds(sample)
        known = tuple(sample.metadata.get("facts") or right)
        filled = {"question": sample.messages[-1].text(), "target": " / ".join(right), "answer": answer}
        return [
            Request(
                f"{sample.id}/p{k}", self.messages(self.filled("user", rules=self.prompt[f"p{k}"], **filled)), (answer,), known
            )
            for k in range(1, len(KEYS) + 1)
        ]

    def read(self, reply: str) -> str:
        """The reply as it is: what its score is depends on the prompt, and a reply without one is a result."""
        return reply

    def spoken(self, grades: Sequence[float]) -> str:
        score = int(grades[0] > 0.5)
        return "\n".join(dict.fromkeys(f"{key}: {score}" for key in KEYS))

    def judge(self, samples: Sequence[Sample], answers: Sequence[str]) -> list[Judgement]:
        asked = [self.requests(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        found: dict[tuple[int, int], Verdict] = {}
        for voice in dict.fromkeys(self.voices):  # all that one is asked, at once
            places = [(i, k) for i in range(len(asked)) for k, other in enumerate(self.voices) if other is voice]
            found |= zip(places, voice.ask([asked[i][k] for i, k in places], self.read, self.spoken), strict=True)
        return [self.judgement(sample, [found[i, k] for k in range(len(KEYS))]) for i, sample in enumerate(samples)]

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        parse = PARSERS[self.options.parser]
        scores = [parse(verdict.reply, key) for verdict, key in zip(verdicts, KEYS, strict=True)]
        score = vote(scores)
        ratios = {
            "without bugs": (float(score == 1), float(score != UNREAD)),
            "bugs": (float(score == UNREAD), 1.0),
            "unanimous": (float(len(set(scores)) == 1), 1.0),
            "unreadable": (float(scores.count(UNREAD)), float(len(scores))),
        }
        read = [replace(verdict, value=one) for verdict, one in zip(verdicts, scores, strict=True)]
        return Judgement(float(score == 1), str(score), ratios, read)


def official(reply: str, key: str) -> int:
    """The published parser."""
    here = next((name for name in (key, key.lower()) if name in reply), None)
    if here is None:
        return UNREAD
    tail = reply.split(here)[1]
    return 0 if "0" in tail else 1 if "1" in tail else UNREAD


def strict(reply: str, key: str) -> int:
    """The first whole number behind the key."""
    found = re.search(rf"{re.escape(key)}\D*?(-?\d+(?:\.\d+)?)", reply, re.IGNORECASE)
    return int(found[1]) if found and found[1] in ("0", "1") else UNREAD


PARSERS: dict[str, Callable[[str, str], int]] = {"official": official, "strict": strict}


def vote(scores: Sequence[int]) -> int:
    """The most frequent score; of equally frequent ones the one that came first."""
    return Counter(scores).most_common(1)[0][0]
