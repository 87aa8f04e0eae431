"""N-grams of a caption that its references have: BLEU-4 (Papineni et al. 2002) and ROUGE-L (Lin 2004), per sentence.

    BLEU-4  = BP (p_1 p_2 p_3 p_4)^(1/4)      p_n: clipped n-gram precision, +1 on both sides for n > 1;  BP = min(1, e^(1 - r/c))
    ROUGE-L = (1 + b^2) P R / (R + b^2 P)     P, R: longest common subsequence over the lengths;  b = 1.2

The score of a caption is the best over its references (target and metadata `answers`), as ChEF has it (arXiv 2311.02692). Words
are lower-cased, without punctuation around them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score
from argus.evaluation.metrics.normalise import text_1
from argus.evaluation.metrics.words import golds

ORDER, BETA = 4, 1.2


def bleu(said: Sequence[str], right: Sequence[str]) -> float:
    """Smoothed BLEU-4 of one sentence with one reference."""
    if not said:
        return 0.0
    logs = 0.0
    for n in range(1, ORDER + 1):
        own = Counter(tuple(said[i : i + n]) for i in range(len(said) - n + 1))
        other = Counter(tuple(right[i : i + n]) for i in range(len(right) - n + 1))
        shared, smooth = (own & other).total(), int(n > 1)
        if not shared + smooth:
            return 0.0
        logs += math.log((shared + smooth) / (own.total() + smooth)) / ORDER
    return math.exp(logs + min(0.0, 1 - len(right) / len(said)))


def rouge_l(said: Sequence[str], right: Sequence[str]) -> float:
    """F of the longest common subsequence with one reference."""
    lengths = [0] * (len(right) + 1)
    for word in said:
        before = 0
        for place, other in enumerate(right, start=1):
            here = lengths[place]
            lengths[place] = before + 1 if word == other else max(here, lengths[place - 1])
            before = here
    longest = lengths[-1]
    if not longest:
        return 0.0
    precision, recall = longest / len(said), longest / len(right)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


class Bleu(AnswerMetric):
    """BLEU-4 with the best reference."""

    Options = NoOptions
    measured = staticmethod(bleu)

    def applies(self, sample: Sample) -> bool:
        return sample.target is not None and not sample.options

    def score(self, sample: Sample, answer: Answer) -> Score:
        said = text_1(answer.text).split()
        return Score(max(self.measured(said, text_1(gold).split()) for gold in golds(sample)), answer.text)


class RougeL(Bleu):
    """ROUGE-L with the best reference."""

    measured = staticmethod(rouge_l)
