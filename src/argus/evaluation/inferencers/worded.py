"""Another inferencer's answers as an assistant would word them, to try judges and metrics on what they have to read.

    inferencer: {worded: {of: likelihood}}

The question's id decides the form (`argus.evaluation.wording`), so that all models speak alike. What is denied or named
beside the answer is the option that the model finds second likeliest; without scores, the next option. The answer's record
holds what is `meant`: the metric `meant` is exact truth, whatever the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zlib import crc32

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Around, Question
from argus.evaluation.options import Named
from argus.evaluation.wording import FORMS, Form, worded


class WordedOptions(Options):
    """Whose answers, and which forms."""

    of: Named = Field("likelihood", description="inferencer that answers")
    forms: list[Form] = Field(list(FORMS), min_length=1, description="ways to word an answer, equally frequent")


class Worded(Around):
    """Words answers."""

    Options = WordedOptions
    options: WordedOptions

    def __init__(self, options: WordedOptions) -> None:
        super().__init__(options, options.of)

    def refusal(self, sample: Sample) -> str | None:
        return super().refusal(sample) or (None if len(sample.options) > 1 else "has no other option to speak of")

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        answers = self.inner.answer(model, questions)
        return [self._worded(a, q.sample) for a, q in zip(answers, questions, strict=True)]

    def _worded(self, answer: Answer, sample: Sample) -> Answer:
        if answer.skipped:
            return answer
        rivals = [o for o in sample.options if o != answer.text]
        if answer.scores:
            rivals.sort(key=lambda option: -answer.scores[sample.options.index(option)])
        form = self.options.forms[crc32(sample.id.encode()) % len(self.options.forms)]
        text, meant = worded(answer.text, rivals[0], form, sample.id)
        return replace(answer, text=text, notes={**answer.notes, "form": form, "meant": meant})
