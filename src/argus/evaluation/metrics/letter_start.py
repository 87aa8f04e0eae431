"""Whether an answer starts with the right letter (MVL-SIB, arXiv 2502.12852), beside two other ways to read it.

    official   the trimmed answer starts with the letter                       "A) foo" -> right, "Based on" -> B
    strict     ... and no letter follows                                       "A) foo" -> right, "Based on" -> nothing
    tolerant   the strict letter, else the last "answer is X", else the only   "The answer is A" -> A
               capital letter of an option that stands alone

The value is the official one; `strict` and `tolerant` are shares of the same answers.
"""

from __future__ import annotations

import re

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score

SAID = re.compile(r"\b(?:answer|option|choice)(?: is|:)?:? *[\"'(*]*([A-Z])\b")


class LetterStart(AnswerMetric):
    """Share of answers that start with the right letter."""

    Options = NoOptions

    def applies(self, sample: Sample) -> bool:
        return bool(sample.options) and sample.target in sample.options and all(len(o) == 1 for o in sample.options)

    def score(self, sample: Sample, answer: Answer) -> Score:
        text = answer.text.strip()
        first = text[:1] if text[:1] in sample.options else ""
        found = {"strict": strict(text, sample.options), "tolerant": tolerant(text, sample.options)}
        ratios = {name: (float(letter == sample.target), 1.0) for name, letter in found.items()}
        return Score(float(first == sample.target), first, ratios)


def strict(text: str, letters: list[str]) -> str:
    """The letter an answer starts with, where no letter follows it."""
    return text[0] if text[:1] in letters and text and not text[1:2].isalpha() else ""


def tolerant(text: str, letters: list[str]) -> str:
    """The letter that an answer means, where that is clear."""
    if first := strict(text, letters):
        return first
    if said := [letter for letter in SAID.findall(text) if letter in letters]:
        return said[-1]
    alone = {word for word in re.findall(r"\b[A-Z]\b", text) if word in letters}
    return alone.pop() if len(alone) == 1 else ""
