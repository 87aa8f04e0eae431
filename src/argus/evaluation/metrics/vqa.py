"""VQA accuracy (VQA: Visual Question Answering, arXiv 1505.00468), as InfMLLM (arXiv 2311.06791) and most others report VQAv2,
OK-VQA and TextVQA: an answer is right as far as three of the people asked gave it.

    accuracy = mean over annotators i of min(1, #{j != i : a_j = answer} / 3)

Leaving each annotator out once makes people and machines comparable; of ten, 1, 2, 3 and 4 who agree give 0.3, 0.6, 0.9 and 1.

The answer is normalised as the official tool does (see `words`: punctuation, digits, articles, contractions). The annotators'
answers lose their punctuation, and that where they differ; they were published in lower case and with digits, and the tool
relies on it. They are the metadata's `answers`, one per annotator, the same one as often as it was given. The tool removes at
most 32 periods, by a slip in an argument; here all go.
"""

from __future__ import annotations

from collections.abc import Sequence

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score
from argus.evaluation.metrics.words import vqa_normalise, without_marks

ENOUGH = 3  # others who make an answer wholly right


class VQAAccuracy(AnswerMetric):
    """Mean share of agreement with ten people, each left out once."""

    Options = NoOptions

    def applies(self, sample: Sample) -> bool:
        return len(sample.metadata.get("answers", [])) > 1

    def score(self, sample: Sample, answer: Answer) -> Score:
        said = vqa_normalise(answer.text)
        return Score(agreement(said, sample.metadata["answers"]), said)


def agreement(said: str, given: Sequence[str]) -> float:
    """Accuracy of a normalised answer beside those of two or more annotators."""
    known = [without_marks(one) for one in given] if len(set(given)) > 1 else given
    same = sum(one == said for one in known)
    left_out = same * min(1.0, (same - 1) / ENOUGH) + (len(known) - same) * min(1.0, same / ENOUGH)
    return max(0.0, left_out) / len(known)
