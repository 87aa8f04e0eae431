"""A question about a worse picture, in worse words, with its options out of order (ChEF's robustness, arXiv 2311.02692).

    corrupted: {picture: gaussian_noise, severity: 3}      corrupted: {text: characters, severity: 2}      both in one

All questions about a picture see the same corrupted one. What a corruption leaves of a model's skill is the metric `rrm`, on
the scenario `ways` with a way that leaves everything as it is. At severity 0 the sample itself comes back.
"""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

from pydantic import Field

from argus.core.images import load_image
from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Sample
from argus.evaluation import picture_corruptions, text_corruptions
from argus.evaluation.inferencers.base import PICTURES
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.instructions.leading import reworded


class CorruptedOptions(Options):
    """What is done, and how much of it."""

    picture: picture_corruptions.Kind | None = Field(
        None, description="what is done to pictures; gaussian_noise where nothing at all is named"
    )
    text: text_corruptions.Kind | None = Field(None, description="what is done to the question")
    order: bool = Field(False, description="turn the options round by as many places as the severity says")
    severity: int = Field(3, ge=0, le=picture_corruptions.WORST, description="0 nothing, 5 worst")


class Corrupted(Instruction):
    """Corrupts a sample."""

    Options = CorruptedOptions
    options: CorruptedOptions

    def __init__(self, options: CorruptedOptions) -> None:
        super().__init__(options)
        self.kind = options.picture or (None if options.text or options.order else "gaussian_noise")

    def apply(self, sample: Sample) -> Sample:
        o = self.options
        if not o.severity:
            return sample
        if self.kind:
            sample = replace(sample, messages=[self._worse(message, sample) for message in sample.messages])
        if o.text:
            kind = o.text
            sample = reworded(sample, lambda text: text_corruptions.corrupt_text(text, kind, o.severity, sample.id))
        if o.order and sample.options:
            turn = o.severity % len(sample.options)
            turned = {PICTURES: _turned(of, turn)} if (of := sample.metadata.get(PICTURES)) else {}
            sample = replace(sample, options=_turned(sample.options, turn), metadata={**sample.metadata, **turned})
        return sample

    def _worse(self, message: Message, sample: Sample) -> Message:
        seed = crc32(str(sample.metadata.get("picture", sample.id)).encode())
        kind, severity = self.kind or "", self.options.severity
        return Message(
            message.role,
            [
                ImagePart(picture_corruptions.corrupt(load_image(p.image, where=sample.id), kind, severity, seed))
                if isinstance(p, ImagePart)
                else p
                for p in message.content
            ],
        )


def _turned(items: list, by: int) -> list:
    return items[by:] + items[:by]
