"""The question without its picture: what a model gets right by its prior alone (MMStar, arXiv 2403.20330).

Pictures are taken out of the messages; a model that cannot run without one gets a plain grey or black picture or noise of its
size instead. The three give different scores, so the mode belongs to the result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal
from zlib import crc32

import numpy as np
from PIL import Image
from pydantic import Field

from argus.core.images import load_image
from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Sample, VideoPart
from argus.evaluation.instructions.base import Instruction

GREY = 127


class BlindOptions(Options):
    """What is shown instead."""

    picture: Literal["none", "grey", "black", "noise"] = Field("none", description="what stands in a picture's place")


class Blind(Instruction):
    """Takes pictures and videos out of every message, or what is on the pictures."""

    Options = BlindOptions
    options: BlindOptions

    def apply(self, sample: Sample) -> Sample:
        messages = [Message(m.role, [p for part in m.content for p in self._left(part, sample)]) for m in sample.messages]
        return replace(sample, messages=messages)

    def _left(self, part: object, sample: Sample) -> list:
        if isinstance(part, VideoPart) or (isinstance(part, ImagePart) and self.options.picture == "none"):
            return []
        if not isinstance(part, ImagePart):
            return [part]
        width, height = load_image(part.image, where=sample.id).size
        if self.options.picture == "noise":  # the same noise for all questions about a picture
            rng = np.random.default_rng(crc32(str(sample.metadata.get("picture", sample.id)).encode()))
            return [ImagePart(Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)))]
        level = GREY if self.options.picture == "grey" else 0
        return [ImagePart(Image.new("RGB", (width, height), (level, level, level)))]
