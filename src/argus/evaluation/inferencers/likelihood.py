"""The option that the model finds likeliest as its whole answer (ChEF's PPL inferencer, arXiv 2311.02692).

An option's score is the sum of the log-probabilities of its tokens, the end of the turn included: exactly the logarithm of the
probability that the model gives this answer and no longer one, so "1" does not beat "12" by being its beginning. ChEF takes the
mean over the option's tokens instead; `normalise: mean` does so. `end: false` leaves the end of the turn out: with the mean
this is how SEED-Bench (arXiv 2307.16125) ranks answers, by the least loss per option token. (Its interface for LLaVA counts the
end in, which is the mean with the end.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question


class LikelihoodOptions(Options):
    """Options of the inferencer."""

    normalise: Literal["sum", "mean"] = Field("sum", description="log-probability of the answer, or its mean per token")
    end: bool = Field(True, description="whether the end of the turn belongs to the answer")


class Likelihood(Inferencer):
    """Argmax over the options; the first of equal ones."""

    Options = LikelihoodOptions
    options: LikelihoodOptions

    def refusal(self, sample: Sample) -> str | None:
        return super().refusal(sample) or (None if len(sample.options) > 1 else "has no options to choose from")

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        scores = model.score(questions, self.options.normalise == "mean", self.options.end)
        return [Answer(q.sample.options[s.index(max(s))], s) for q, s in zip(questions, scores, strict=True)]
