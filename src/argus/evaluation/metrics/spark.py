"""Right answers as SPARK counts them (arXiv 2408.12114): a letter or yes/no, read by rules whose order matters.

    1  nothing                                                        -> nothing
    2  the first character, lower-cased, is one of a, b, c, d         -> that letter
    3  the first two characters, lower-cased, are "no"                -> no
    4  the first three characters, lower-cased, are "yes"             -> yes
    5  a capital A, B, C or D that stands alone, the first of them    -> it
    6  else                                                           -> nothing

So "Answer: C" is A, "Definitely yes" is D and "The answer is yes" is nothing. `strict` reads the same answers more carefully: a
letter or yes/no that is the whole first word, else the last "answer is X". Beside them stand what giving always one answer would
score, `constant yes` and `constant A`, and `random`, all over the same questions; pictures left out is the group `blind`.

`spark_all` is the paper's one number: the mean over sensors and over perception and reasoning (the branches) of the mean over
question types (the families) of their accuracies. Question types that were not asked are left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, CorpusMetric, NoOptions, Score

CONSTANTS = ("yes", "A")
ALONE = re.compile(r"\b[A-D]\b")
FIRST = re.compile(r"\W*(?:([A-D])\b(?!['’])|([a-d])(?=\W*$|[.):,])|((?i:yes|no))\b)")
LAST = re.compile(r"(?i:\banswer(?: is|:):?)\s*[\"'(*]*(?:([A-Da-d])|((?i:yes|no)))\b")


def official(text: str) -> str:
    """The answer by the published rules; nothing where they find none."""
    start = text[:3].lower()
    if start[:1] and start[0] in "abcd":
        return start[0].upper()
    if start[:2] == "no":
        return "no"
    if start == "yes":
        return "yes"
    found = ALONE.search(text)
    return found.group() if found else ""


def strict(text: str) -> str:
    """The answer where it is the first word or announced; nothing else is read as one."""
    first = FIRST.match(text)
    found = [first] if first else [*LAST.finditer(text)][-1:]
    said = next((group for match in found for group in match.groups() if group), "")
    return said.lower() if len(said) > 1 else said.upper()


class Spark(AnswerMetric):
    """Share of right answers; also strict, and what constant and random answers score."""

    Options = NoOptions

    def score(self, sample: Sample, answer: Answer) -> Score:
        extracted = official(answer.text)
        right = {"strict": strict(answer.text), **{f"constant {word}": word for word in CONSTANTS}}
        ratios = {name: (float(said == sample.target), 1.0) for name, said in right.items()}
        if sample.options:
            ratios["random"] = (1 / len(sample.options), 1.0)
        return Score(float(extracted == sample.target), extracted, ratios)


class SparkAll(CorpusMetric):
    """The mean over cells; a family's number under this metric is its part of it and means nothing by itself."""

    Options = NoOptions

    def applies(self, sample: Sample) -> bool:
        return super().applies(sample) and len(sample.metadata.get("branches", [])) == 1

    def score(self, sample: Sample, answer: Answer) -> Score:
        extracted = official(answer.text)
        known = {"cell": sample.metadata["branches"][0], "type": sample.metadata["family"]}
        return Score(None, extracted, notes={**known, "right": extracted == sample.target})

    def over_corpus(self, notes: Sequence[Mapping[str, Any]]) -> list[float]:
        """Weights N / (cells * types of the cell * items of the type): their mean over all right answers is the mean of cells."""
        types: defaultdict[str, set[str]] = defaultdict(set)
        items = Counter((note["cell"], note["type"]) for note in notes)
        for cell, kind in items:
            types[cell].add(kind)
        scale = len(notes) / len(types)
        return [
            scale * note["right"] / (len(types[note["cell"]]) * items[note["cell"], note["type"]]) for note in notes
        ]  # fmt: skip
