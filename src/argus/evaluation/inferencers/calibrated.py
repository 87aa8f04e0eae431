"""Probabilities that say how often an answer is right: another inferencer's scores, divided by a temperature.

    p(o) = softmax over the options of s_o / T        T = argmin over a fitting set of -sum log p(right option)

The temperature ("On Calibration of Modern Neural Networks", arXiv 1706.04599) changes no answer, only confidences: what ChEF's
calibration (arXiv 2311.02692; metric `ece`) measures. It is fitted on questions of their own, `fit`, before the first answer,
and stands in every record; so a number is always reported on questions that nothing was fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import islice
from typing import Any

import numpy as np
from PIL.Image import Image
from pydantic import Field, model_validator

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.images import load_image
from argus.core.registry import Options, build
from argus.evaluation.desiderata import temperature
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Around, Question
from argus.evaluation.inferencers.ppl import chosen
from argus.evaluation.options import Named, named
from argus.evaluation.scenarios.base import scenario_of

BATCH = 16  # groups that are asked together


class CalibratedOptions(Options):
    """Whose scores, and where the temperature comes from."""

    of: Named = Field("ppl", description="inferencer whose scores are divided")
    temperature: float | None = Field(None, gt=0, description="the temperature; fitted when not given")
    fit: Named | None = Field(None, description="scenario that the temperature is fitted on")
    instruction: Named | list[Named] = Field("plain", description="how its questions are asked")
    samples: int = Field(400, ge=1, description="its questions")
    seed: int = Field(0, ge=0, description="its part; take another one, or another split, than is reported on")

    @model_validator(mode="after")
    def _one(self) -> CalibratedOptions:
        if (self.temperature is None) == (self.fit is None):
            raise ValueError("give either 'temperature' or 'fit', the scenario to find it on")
        return self


class Calibrated(Around):
    """Divides by the temperature."""

    Options = CalibratedOptions
    options: CalibratedOptions

    def __init__(self, options: CalibratedOptions) -> None:
        super().__init__(options, options.of)
        self.temperature = options.temperature
        self.scenario = scenario_of(options.fit) if options.fit is not None else None
        given = options.instruction if isinstance(options.instruction, list) else [options.instruction]
        self.instructions = [build("instruction", *named(one)) for one in given]

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        if self.temperature is None:
            self.temperature = self.fitted(model)
        return [self._divided(a, q.sample.options) for a, q in zip(self.inner.answer(model, questions), questions, strict=True)]

    def fitted(self, model: AnsweringModel) -> float:
        """The likeliest temperature on the fitting set.

        Raises:
            RecipeError: it holds no question with a right option.
        """
        scores: list[list[float]] = []
        targets: list[int] = []
        stream = self.questions()
        while batch := list(islice(stream, BATCH)):
            asked = [question for group in batch for question in group]
            for question, answer in zip(asked, self.inner.answer(model, asked), strict=True):
                scores.append(_scores(answer))
                targets.append(question.sample.options.index(question.sample.target or ""))
        if not scores:
            raise RecipeError("the fitting set holds no question with a right option", where="inferencer 'calibrated'")
        return temperature(scores, targets)

    def questions(self) -> Iterator[list[Question]]:
        """The fitting set as it is asked, group by group."""
        assert self.scenario is not None  # one of temperature and fit is given
        for group in self.scenario.groups(self.options.samples, self.options.seed):
            samples = [reduce(lambda s, one: one.apply(s), self.instructions, sample) for sample in group.samples]
            shown: list[Any] = []
            images: list[Image] = []
            asked: list[Question] = []
            for sample in samples:
                if sample.target in sample.options and not self.inner.refusal(sample):
                    if sample.images() != shown:
                        shown, images = sample.images(), [load_image(i, where=sample.id) for i in sample.images()]
                    asked.append(Question(f"fit/{group.id}", sample, images, len(shown)))
            yield asked

    def _divided(self, answer: Answer, options: Sequence[str]) -> Answer:
        if answer.skipped:
            return answer
        assert self.temperature is not None  # found before
        scaled = np.asarray(_scores(answer)) / self.temperature
        found = chosen(options, (scaled - np.logaddexp.reduce(scaled)).tolist())
        return Answer(answer.text, found.scores, answer.tokens, {**answer.notes, **found.notes, "temperature": self.temperature})


def _scores(answer: Answer) -> list[float]:
    if not answer.scores:
        raise UnsupportedError("only scores can be divided by a temperature, and the inferencer gives none")
    return answer.scores
