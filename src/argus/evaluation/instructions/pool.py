"""A pool of wordings: each question is put in one of several ways (ChEF's query pools, arXiv 2311.02692).

Which one is chosen by the question's id, so that it is the same for every model; scores that move with the wording are not about
seeing.
"""

from __future__ import annotations

from zlib import crc32

from pydantic import Field, field_validator

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.instructions.leading import reworded

WORDINGS = (
    "Look at the picture. {question}",
    "{question} Answer briefly.",
    "Question: {question}",
    "Please tell me: {question}",
)


class PoolOptions(Options):
    """The wordings."""

    templates: list[str] = Field(list(WORDINGS), min_length=1, description="ways to put a question, each with {question}")

    @field_validator("templates")
    @classmethod
    def _complete(cls, value: list[str]) -> list[str]:
        if any("{question}" not in template for template in value):
            raise ValueError("every template needs {question}")
        return value


class Pool(Instruction):
    """Puts each question in one of several ways."""

    Options = PoolOptions
    options: PoolOptions

    def apply(self, sample: Sample) -> Sample:
        templates = self.options.templates
        chosen = templates[crc32(sample.id.encode()) % len(templates)]
        return reworded(sample, lambda text: chosen.replace("{question}", text))
