"""What the model writes, greedily: at each step the likeliest token, until the end of the turn."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from argus.core.registry import Options
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question


class GenerateOptions(Options):
    """Options of the inferencer."""

    max_new_tokens: int = Field(16, ge=1, le=4096, description="longest answer in tokens (ChEF's default)")


class Generate(Inferencer):
    """Greedy decoding."""

    Options = GenerateOptions
    options: GenerateOptions

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        return model.generate(questions, self.options.max_new_tokens)
