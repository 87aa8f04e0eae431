"""The question without its picture: what a model gets right by its prior alone (MMStar, arXiv 2403.20330)."""

from __future__ import annotations

from dataclasses import replace

from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Sample, VideoPart
from argus.evaluation.instructions.base import Instruction


class BlindOptions(Options):
    """None."""


class Blind(Instruction):
    """Takes pictures and videos out of every message."""

    Options = BlindOptions

    def apply(self, sample: Sample) -> Sample:
        messages = [Message(m.role, [p for p in m.content if not isinstance(p, ImagePart | VideoPart)]) for m in sample.messages]
        return replace(sample, messages=messages)
