"""The likeliest option over several pictures, each asked about by itself: the prefix-based score (LVLM-eHub, arXiv 2306.09265).

    loss_i(c) = -1/|c| sum_t log p(c_t | picture i, prompt, c_<t)        p_i = softmax over c of 1 / loss_i(c)
    answer    = argmax_c mean_i p_i(c)

This is how ImageNetVC's questions of common knowledge ("what colour is a fire engine?") are asked: ten pictures of the
category, and what holds for most of them wins. A question with one picture gets the option of least loss per token. Because 1
/ loss is not a logarithm, another candidate changes the probabilities, but never the order of the others for one picture.

The candidate is the assistant's turn behind the prompt, where the published code writes both into one line; its five prompts
are instructions here (`pool`), one evaluation each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from argus.core.sample import ImagePart, Message, Sample
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question
from argus.evaluation.inferencers.ppl import shares as softmax
from argus.evaluation.metrics.base import NoOptions

LEAST = 1e-6  # loss of an option that is certain


class Prefix(Inferencer):
    """Argmax of the mean over pictures; the first of equal ones."""

    Options = NoOptions

    def refusal(self, sample: Sample) -> str | None:
        return super().refusal(sample) or (None if len(sample.options) > 1 else "has no options to choose from")

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        asked = [one_by_one(question) for question in questions]
        scores = iter(model.score([q for some in asked for q in some], True, False))
        found = []
        for question, some in zip(questions, asked, strict=True):
            mean = np.mean([shares([-score for score in next(scores)]) for _ in some], axis=0)
            found.append(Answer(question.sample.options[int(mean.argmax())], mean.tolist()))
        return found


def shares(losses: Sequence[float]) -> list[float]:
    """Softmax over the candidates of 1 / loss: (candidates,)."""
    return softmax([1 / max(loss, LEAST) for loss in losses])


def one_by_one(question: Question) -> list[Question]:
    """A question once per picture; as it is where it shows one or none."""
    if len(question.images) < 2:
        return [question]
    return [
        Question(f"{question.group}/{k}", replace(question.sample, messages=_showing(question.sample, k)), [image])
        for k, image in enumerate(question.images)
    ]


def _showing(sample: Sample, wanted: int) -> list[Message]:
    """The conversation with one of its pictures."""
    pictures = [part for m in sample.messages for part in m.content if isinstance(part, ImagePart)]
    left = pictures[wanted]
    return [Message(m.role, [p for p in m.content if not isinstance(p, ImagePart) or p is left]) for m in sample.messages]
