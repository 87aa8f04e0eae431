"""ChEF's PPL inferencer (arXiv 2311.02692): options put into an answer template, and the option's own tokens scored.

    Assistant: The answer is | (A            s_o = 1/L sum_t log p(y_t | picture, question, template, y_<t)
               template        option y, L tokens

    answer = argmax_o s_o        probs = softmax over the options of s_o        prob = max of probs, the confidence

The template is what the model is taken to have said; its tokens count in no score. A template has its option at the end, so
that all that stands before an option is the same for all of them. Option tokens are those behind the place where the prompt with
the template and the answered prompt part, in the answer as it is written, so a tokenizer that merges a blank with "(" scores
the merged token; the published code tokenises options alone and takes as many positions from the end.

The mean over tokens is the paper's. `normalise: sum` is the log-probability of the whole option: options of different lengths
rank differently by the two. Its first release takes the option of least loss where accuracy is measured: the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from argus.core.registry import Options
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Question
from argus.evaluation.inferencers.likelihood import Likelihood

OPTION = "{option}"
TEMPLATES = (f"The answer is {OPTION}", f"The correct option for the question is {OPTION}", OPTION)


class PPLOptions(Options):
    """Options of the inferencer."""

    template: str = Field(TEMPLATES[0], description="how an answer is worded, with {option} at its end")
    normalise: Literal["mean", "sum"] = Field("mean", description="mean log-probability of the option's tokens, or their sum")

    @field_validator("template")
    @classmethod
    def _ends(cls, value: str) -> str:
        if value.count(OPTION) != 1 or not value.endswith(OPTION):
            raise ValueError("the template needs {option} once, at its end")
        return value


class PPL(Likelihood):
    """Argmax over the options; the first of equal ones."""

    Options = PPLOptions  # type: ignore[assignment]
    options: PPLOptions  # type: ignore[assignment]

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        said = self.options.template.removesuffix(OPTION)
        asked = [replace(question, lead=question.lead + said) for question in questions]
        scores = model.score(asked, self.options.normalise == "mean", False)
        return [chosen(q.sample.options, s) for q, s in zip(questions, scores, strict=True)]


def chosen(options: Sequence[str], scores: Sequence[float]) -> Answer:
    """The option of the best score, with the probabilities that the scores give."""
    probs = shares(scores)
    return Answer(options[probs.index(max(probs))], list(scores), notes={"probs": probs, "prob": max(probs)})


def shares(scores: Sequence[float]) -> list[float]:
    """Softmax over the options: (options,)."""
    weight = np.exp(np.asarray(scores, dtype=float) - max(scores))
    return (weight / weight.sum()).tolist()
