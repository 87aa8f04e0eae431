"""Techniques with something to find on data before they are used: a schedule, a mask of heads.

Such a technique's options have `calibrate`, which says on which questions. What runs them - a recipe's run, or
`argus.runner.calibrate.calibrated` - hands the technique a `Calibration`, and gets options back that hold what was found and have
`calibrate` no more. Calibrating on the questions of the evaluation would say nothing, so the default is another split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pydantic import Field
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.anatomy.base import Anatomy


class CalibrationOptions(Options):
    """The questions on which something is found."""

    scenario: str | dict[str, dict[str, Any]] = Field(
        {"world/objects": {"split": "validation"}}, description="what is asked, as in an evaluation: {name: {options}}"
    )
    samples: int = Field(256, ge=1, description="questions")
    seed: int = Field(0, ge=0, description="which part of the scenario, and of all random choices")


class Calibration(Protocol):
    """A model and questions, as a technique sees them while it is fitted."""

    anatomy: Anatomy

    def accuracy(self, options: Options) -> float:
        """Share of right answers with the technique attached with these options."""
        ...

    def prompts(self) -> Iterator[Mapping[str, Tensor]]:
        """The processor's output for each question, one prompt at a time."""
        ...


def refuse_uncalibrated(calibrate: CalibrationOptions | None) -> None:
    """Raises UnsupportedError where something has still to be found."""
    if calibrate is not None:
        raise UnsupportedError(
            "it has to be calibrated before it is attached.",
            hint="A recipe's run does that; in Python, argus.runner.calibrate.calibrated(...) gives the options for attach.",
        )
