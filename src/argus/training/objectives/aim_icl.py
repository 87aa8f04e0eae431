"""Trains the linear map of AIM (arXiv 2406.07588) on documents of several pictures.

    j ~ U{1 .. p - 1};  pictures 1 .. j with their text become virtual tokens F, picture j + 1 is the query
    L = - mean over the tokens t of the answers behind the query of log p(y_t | F_1 .. F_j, V_{j+1}, y_<t)

A document is a conversation that shows p pictures: of a multi-picture file, an episode of the world's, or `document` neighbouring
one-picture items of the batch, one behind the other. What comes behind the query's answers is cut off. Demonstrations are read
without a gradient; it reaches W through the frozen language model's embeddings, so the stage trains `aim_icl` alone. The paper
trains one epoch on an interleaved web corpus that has nothing to do with the tasks it is tested on; rates are not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from argus.core.errors import DataError, UnsupportedError
from argus.core.sample import ImagePart, Sample
from argus.methods.attach import Attachment
from argus.training.objectives.base import Batch, Item
from argus.training.objectives.technique import TechniqueObjective, TechniqueOptions
from argus.world.data import DEMONSTRATED, conversation


class AimTrainingOptions(TechniqueOptions):
    """What documents are made of."""

    turns: Literal["independent", "conversation"] = Field("conversation", description="a document is one dialogue")
    document: int = Field(4, ge=2, description="one-picture items of the batch that make a document")
    shots: int | None = Field(None, ge=1, description="demonstrations, where a document has so many; by lot when not given")


class AimTraining(TechniqueObjective):
    """Answers about the last picture, read behind virtual tokens."""

    name = "aim_icl"
    Options = AimTrainingOptions
    options: AimTrainingOptions

    def bind(self, model: nn.Module, processor: Any) -> None:
        if self.options.packing or self.options.turns != "conversation":
            raise UnsupportedError("a document is a row of its own, and one dialogue.", hint="Leave 'packing' and 'turns' out.")
        super().bind(model, processor)
        self.reducer.check(self.anatomy)

    def compile(self, model: nn.Module) -> None:
        """Only the vision tower: virtual tokens reach the language model through hooks."""
        self.anatomy.vision_tower.compile()

    def collate(self, items: Sequence[Item]) -> Batch:
        samples = [item if isinstance(item, Sample) else conversation(item[0]) for item in items]
        return super().collate([self.cut(document) for document in documents(samples, self.options.document)])

    def cut(self, document: Sample) -> Sample:
        """The document up to the answers about its query; which picture that is, is a pure function of the document."""
        pictures = len(document.images())
        if pictures < 2:
            raise DataError("a document needs two pictures, of which one is a demonstration", where=document.id)
        drawn = Random(document.id).randint(1, pictures - 1)
        shots = drawn if self.options.shots is None else min(self.options.shots, pictures - 1)
        seen, end = 0, len(document.messages)
        for number, message in enumerate(document.messages):
            seen += sum(isinstance(part, ImagePart) for part in message.content)
            if seen > shots + 1:
                end = number
                break
        return replace(document, messages=document.messages[:end], metadata={**document.metadata, DEMONSTRATED: True})

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with Attachment(model, self.name, self.reducer):
            return super().loss(model, batch)


def documents(samples: Sequence[Sample], size: int) -> list[Sample]:
    """Samples of several pictures as they are, and those of one picture joined, `size` at a time."""
    found, single = [s for s in samples if len(s.images()) > 1], [s for s in samples if len(s.images()) == 1]
    for start in range(0, len(single) - 1, size):
        some = single[start : start + size]
        if len(some) > 1:  # one that is left over has no demonstration
            turns = [m for s in some for m in s.messages if m.role != "system" or s is some[0]]
            found.append(replace(some[0], messages=turns))
    return found
