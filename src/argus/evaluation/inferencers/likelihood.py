"""The option that the model finds likeliest as its whole answer (ChEF's PPL inferencer, arXiv 2311.02692).

An option's score is the sum of the log-probabilities of its tokens, the end of the turn included: exactly the
logarithm of the probability that the model gives this answer and no longer one, so "1" does not beat "12" by being
its beginning. ChEF takes the mean over the option's tokens instead; `normalise: mean` does so.
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


class Likelihood(Inferencer):
    """Argmax over the options; the first of equal ones."""

    Options = LikelihoodOptions
    options: LikelihoodOptions

    def refusal(self, sample: Sample) -> str | None:
        return None if len(sample.options) > 1 else "has no options to choose from"

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        scores = model.score(questions, self.options.normalise == "mean")
        return [Answer(q.sample.options[s.index(max(s))], s) for q, s in zip(questions, scores, strict=True)]
