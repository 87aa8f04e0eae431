"""POPE: is a thing there, yes or no (arXiv 2305.10355): accuracy, and the precision, recall and F1 of saying yes.

    precision = TP / (TP + FP)    recall = TP / (TP + FN)    F1 = 2 TP / (2 TP + FP + FN)    yes = (TP + FP) / all

The measurement is the accuracy; the others stand beside it as `pope[precision]`, `pope[recall]`, `pope[f1]`, `pope[yes]`. A model
that hallucinates says yes too often.

`rule: substring` reads answers as the code published with DAMRO (arXiv 2410.04514) does: where the truth is yes, an answer is
right if it holds "yes" anywhere, where it is no, if it holds "no" anywhere; "I do not know" is a right no, and "another" too.
`rule: strict` takes the first word; an answer that begins with neither is wrong, and is no yes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, Score
from argus.evaluation.metrics.normalise import text_1


class PopeOptions(Options):
    """Options of the metric."""

    rule: Literal["strict", "substring"] = Field("strict", description="the first word, or yes and no anywhere as published")


class Pope(AnswerMetric):
    """Accuracy on questions of yes or no, and what saying yes is worth."""

    Options = PopeOptions
    options: PopeOptions

    def applies(self, sample: Sample) -> bool:
        """Questions of yes or no."""
        return text_1(sample.target or "") in ("yes", "no")

    def score(self, sample: Sample, answer: Answer) -> Score:
        wanted = text_1(sample.target or "") == "yes"
        if self.options.rule == "substring":
            text = answer.text.lower()
            right = ("yes" if wanted else "no") in text
            said = wanted == right
            extracted = "yes" if said else "no"
        else:
            extracted = next(iter(text_1(answer.text).split()), "")
            said, right = extracted == "yes", extracted == ("yes" if wanted else "no")
        hit = float(said and wanted)
        ratios = {
            "precision": (hit, float(said)),
            "recall": (hit, float(wanted)),
            "f1": (2 * hit, float(said) + float(wanted)),
            "yes": (float(said), 1.0),
        }
        return Score(float(right), extracted, ratios)
