"""What an instruction is: a function from a sample to the sample as the model gets it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from argus.core import registry
from argus.core.sample import Sample


class Instruction(ABC):
    """Rewrites messages and, where the form of the answer changes, options and target. Never changes the id."""

    Options: ClassVar[type[registry.Options]]

    def __init__(self, options: registry.Options) -> None:
        self.options = options

    @abstractmethod
    def apply(self, sample: Sample) -> Sample:
        """The sample as asked; the given one is left as it is."""
