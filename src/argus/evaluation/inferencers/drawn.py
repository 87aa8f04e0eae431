"""Options that are pictures (SEED-Bench-2, arXiv 2311.17092, dimensions 25 to 27): the one most like what the model draws.

    picture = argmax_i cos(e(drawn by the model), e(option i))        e: the image tower of a CLIP-like model

Where the options are texts with pictures, the answer is an option only if text and picture agree on it: the text by another
inferencer, the picture as above. A model that cannot draw but can compare a text with pictures chooses the likeliest picture;
its records say so (`chosen_by: likelihood`), since the paper counts a model that picks from a pool as one that cannot draw. A
model that can do neither is asked its other questions, and these are left out with the reason.

The paper ranks drawn pictures because not every generator gives pictures a likelihood. It does not name its CLIP checkpoint;
here it is an option, and every record names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from PIL.Image import Image
from pydantic import Field

from argus.core.images import load_image
from argus.core.registry import Options, build
from argus.core.sample import Sample
from argus.evaluation.contrastive import ContrastiveModel
from argus.evaluation.inferencers.base import PICTURES, Answer, AnsweringModel, Inferencer, Question
from argus.evaluation.options import Named, named

NEITHER = "UnsupportedError: the model neither makes pictures nor compares them with a text"


@runtime_checkable
class DrawingModel(Protocol):
    """A model that makes pictures."""

    def draw(self, questions: Sequence[Question]) -> list[Image]:
        """One picture per question."""
        ...


@runtime_checkable
class ComparingModel(Protocol):
    """A model that says how well pictures fit a text."""

    def score_pictures(self, question: Question, pictures: Sequence[Image]) -> list[float]:
        """One score per picture."""
        ...


class DrawnOptions(Options):
    """Options of the inferencer."""

    text: Named = Field("likelihood", description="inferencer for options in words")
    encoder: str = Field("argus/tiny-clip", description="CLIP-like model whose image tower says how alike pictures are")


class Drawn(Inferencer):
    """Chooses among pictures; options in words are the other inferencer's."""

    Options = DrawnOptions
    options: DrawnOptions

    def __init__(self, options: DrawnOptions) -> None:
        super().__init__(options)
        self.words: Inferencer = build("inferencer", *named(options.text))

    def refusal(self, sample: Sample) -> str | None:
        return None if PICTURES in sample.metadata else self.words.refusal(sample)

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        inworded = [q for q in questions if PICTURES not in q.sample.metadata]
        found = iter(self.words.answer(model, inworded) if inworded else [])
        return [self._chosen(model, q) if PICTURES in q.sample.metadata else next(found) for q in questions]

    def _chosen(self, model: Any, question: Question) -> Answer:
        options = question.sample.options
        pictures = [load_image(p, where=question.sample.id) for p in question.sample.metadata[PICTURES]]
        asked = replace(question, sample=replace(question.sample, metadata=_without_pictures(question.sample)))
        if isinstance(model, DrawingModel):
            scores, how = self.likeness(model.draw([asked])[0], pictures), self.options.encoder
        elif isinstance(model, ComparingModel):
            scores, how = model.score_pictures(asked, pictures), "likelihood"
        else:
            return Answer("", skipped=NEITHER)
        chosen = options[scores.index(max(scores))]
        notes = {"chosen": chosen, "chosen_by": how}
        if all(len(option) == 1 for option in options):  # letters: there is no text to choose
            return Answer(chosen, scores, notes=notes)
        (text,) = self.words.answer(model, [asked])
        return Answer(
            chosen if text.text == chosen else "", scores, text.tokens, {**notes, "chosen_text": text.text}, text.skipped
        )

    @torch.inference_mode()
    def likeness(self, drawn: Image, pictures: Sequence[Image]) -> list[float]:
        """Cosine of a picture's embedding with each option's."""
        one, *options = self._encoder.see([drawn, *pictures])
        return [float(one @ option) for option in options]

    @cached_property
    def _encoder(self) -> ContrastiveModel:
        from argus.model.load import load

        return ContrastiveModel(*load(self.options.encoder))


def _without_pictures(sample: Sample) -> dict[str, Any]:
    return {key: value for key, value in sample.metadata.items() if key != PICTURES}
