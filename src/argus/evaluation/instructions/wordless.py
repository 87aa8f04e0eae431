"""The picture without its question: what a model says that reads no text, a baseline for what changes in the text are worth.

    What colour is the star?   ->   What is this?

The same words stand in every question's place; options and picture stay. Such a model keeps its accuracy whatever is done to the
question, and its choice among renamed options has nothing to do with its choice among the options: the lower ends of ChEF's
robustness to text and of its instruction following (arXiv 2311.02692).
"""

from __future__ import annotations

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.instructions.leading import reworded


class WordlessOptions(Options):
    """What stands in the question's place."""

    words: str = Field("What is this?", description="the same words for every question")


class Wordless(Instruction):
    """Replaces the question's text."""

    Options = WordlessOptions
    options: WordlessOptions

    def apply(self, sample: Sample) -> Sample:
        return reworded(sample, lambda _: self.options.words)
