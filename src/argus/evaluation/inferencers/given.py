"""Answers that come with the items: files of answers to be scored hold questions and answers together (MMIE, arXiv 2410.10139).

The model is not asked. Pictures of an answer travel inside its text (`argus.evaluation.interleaved`); one that is not there
is left out, as the published script does.
"""

from __future__ import annotations

from collections.abc import Sequence

from argus.core.errors import DataError
from argus.core.images import load_image
from argus.core.sample import ImagePart, Part, Sample
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question
from argus.evaluation.interleaved import written
from argus.evaluation.metrics.base import NoOptions


class Given(Inferencer):
    """Takes the answer that the item brings."""

    Options = NoOptions

    def refusal(self, sample: Sample) -> str | None:
        return None if "given" in sample.metadata else "comes without an answer"

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(written([part for part in q.sample.metadata["given"] if _there(part)])) for q in questions]


def _there(part: Part) -> bool:
    try:
        return not isinstance(part, ImagePart) or bool(load_image(part.image))
    except DataError:
        return False
