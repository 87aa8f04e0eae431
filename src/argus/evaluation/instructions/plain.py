"""The question as it stands in the dataset."""

from __future__ import annotations

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.instructions.base import Instruction


class PlainOptions(Options):
    """None."""


class Plain(Instruction):
    """Changes nothing."""

    Options = PlainOptions

    def apply(self, sample: Sample) -> Sample:
        return sample
