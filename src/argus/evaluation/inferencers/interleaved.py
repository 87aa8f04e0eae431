"""Answers in texts and pictures (MMIE, arXiv 2410.10139), of models that make pictures and of models that only describe them.

A model that makes pictures gives parts, which are taken in their order. Any other one is told to put the description of each
picture in a tag, and the judge's renderer draws it: the pipeline of a model that understands and one that makes pictures.
Both are written as one text (`argus.evaluation.interleaved`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Message, Part, Sample, TextPart
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question
from argus.evaluation.interleaved import written


@runtime_checkable
class InterleavingModel(Protocol):
    """A model that answers in texts and pictures."""

    def interleave(self, questions: Sequence[Question], max_new_tokens: int) -> list[list[Part]]:
        """The parts of each answer, in their order."""
        ...


class InterleavedOptions(Options):
    """How descriptions are asked for."""

    ask: str = Field(
        "\nWhere a picture belongs, describe it between <image> and </image>.",
        description="what a model that makes no pictures is told behind the question",
    )
    max_new_tokens: int = Field(1024, ge=1, le=8192, description="longest answer in tokens")


class Interleaved(Inferencer):
    """Texts and pictures as one text."""

    Options = InterleavedOptions
    options: InterleavedOptions

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        if isinstance(model, InterleavingModel):
            return [Answer(written(parts)) for parts in model.interleave(questions, self.options.max_new_tokens)]
        asked = [replace(q, sample=self.told(q.sample)) for q in questions]
        return model.generate(asked, self.options.max_new_tokens)

    def told(self, sample: Sample) -> Sample:
        """The question with the way to answer behind it."""
        *before, last = sample.messages
        return replace(sample, messages=[*before, Message(last.role, [*last.content, TextPart(self.options.ask)])])
