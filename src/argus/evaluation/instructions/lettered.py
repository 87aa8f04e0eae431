"""Multiple choice: the options printed under the question, one letter each, and the letter asked for.

What colour is the star?
A. red
B. green
Answer with the letter.
"""

from __future__ import annotations

from dataclasses import replace
from string import ascii_uppercase
from typing import Literal

from pydantic import Field

from argus.core.errors import DataError
from argus.core.registry import Options
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.instructions.base import Instruction


class LetteredOptions(Options):
    """Options of the instruction."""

    answer: Literal["letter", "text"] = Field("letter", description="whether the answer is the letter or the option's text")
    request: str | None = Field(None, description="last line of the question; a fixed sentence per `answer` when null")


REQUESTS = {"letter": "Answer with the letter.", "text": "Answer with one of the options."}


class Lettered(Instruction):
    """Adds the options to the last user turn; with `answer: letter` options and target become letters."""

    Options = LetteredOptions
    options: LetteredOptions

    def apply(self, sample: Sample) -> Sample:
        if not sample.options:
            return sample
        if len(sample.options) > len(ascii_uppercase):
            raise DataError(f"{len(sample.options)} options, but only 26 letters", where=sample.id)
        request = REQUESTS[self.options.answer] if self.options.request is None else self.options.request
        lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, sample.options, strict=False)]
        asked = TextPart("\n" + "\n".join([*lines, request]))
        last = sample.messages[-1]
        messages = [*sample.messages[:-1], Message(last.role, [*last.content, asked])]
        if self.options.answer == "text":
            return replace(sample, messages=messages)
        letters = list(ascii_uppercase[: len(sample.options)])
        target = letters[sample.options.index(sample.target)] if sample.target in sample.options else sample.target
        return replace(sample, messages=messages, options=letters, target=target)
