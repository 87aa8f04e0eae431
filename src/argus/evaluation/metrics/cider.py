"""CIDEr-D of captions, with document frequencies of the evaluation's own references, as LVLM-eHub scores (arXiv 2306.09265).

Texts are compared lower-cased and without punctuation, split at blanks; the formula stands in `argus.evaluation.cider`. What
an n-gram is worth depends on all references together, so that answers have no score until all of them are in. A caption that
goes on behind what its references say loses twice: to the n-grams that nobody wrote and to the penalty of the length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from argus.core.sample import Sample
from argus.evaluation.cider import cider_d
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import CorpusMetric, NoOptions, Score
from argus.evaluation.metrics.words import golds

_WORD = re.compile(r"[^\W_]+(?:['.][^\W_]+)*")


class Cider(CorpusMetric):
    """Consensus with the target and the `answers` of the metadata."""

    Options = NoOptions
    unit = "points"

    def score(self, sample: Sample, answer: Answer) -> Score:
        said = tokens(answer.text)
        return Score(None, said, notes={"said": said, "references": [tokens(gold) for gold in golds(sample)]})

    def over_corpus(self, notes: Sequence[Mapping[str, Any]]) -> list[float]:
        return cider_d([one["said"] for one in notes], [one["references"] for one in notes])


def tokens(text: str) -> str:
    """Words in lower case with a blank between them.

    >>> tokens("A dog's toy; 3.5 cm.")
    "a dog's toy 3.5 cm"
    """
    return " ".join(_WORD.findall(text.lower()))
