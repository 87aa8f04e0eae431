"""No answer, but where the model looks: attention on the picture's tokens, in the language model and in the encoder.

[CLS] Attention is All You Need for Training-Free Visual Token Pruning (arXiv 2412.01818) averages these curves over questions; so
does the metric `attention_shift`, which puts a number on them. `argus.methods.reduction.diagnostics` has the equations.

    notes: attention = {last: (layers, N), encoder: (N,)}        N visual tokens of the question's one picture, in raster order

Curves are of the model alone: with a technique attached, its tokens would be others, and the question is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question
from argus.evaluation.local import LocalModel
from argus.methods.reduction.diagnostics import attention_curves

ATTACHED = "UnsupportedError: attention curves are of the model alone, and a technique is attached"


class NoOptions(Options):
    """Nothing to choose."""


class Attention(Inferencer):
    """Reads attention maps while a prompt is prefilled."""

    Options = NoOptions

    def refusal(self, sample: Sample) -> str | None:
        pictures = len(list(sample.images()))
        return super().refusal(sample) or (None if pictures == 1 else f"attention curves are of one picture, not of {pictures}")

    @torch.inference_mode()
    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        if not isinstance(model, LocalModel):
            raise UnsupportedError("attention can be read in a language model on this machine alone")
        if model.held.attachment is not None:
            return [Answer("", skipped=ATTACHED) for _ in questions]
        return [Answer("", notes={"attention": self._curves(model, question)}) for question in questions]

    def _curves(self, model: LocalModel, question: Question) -> dict[str, Any]:
        (inputs,) = model.alone.inputs([question], model.held.prompter.prompts([question], options=False))
        curves = attention_curves(model.held.model, inputs)
        return {"last": curves.last.tolist(), "encoder": curves.encoder.tolist()}
