"""What objectives share that train a technique's own parts - routers, predictors, thresholds - beside a model or in a frozen one.

    objective: {dyvte: {technique: {hidden: 256}}}

Such an objective bears its technique's name. It makes the parts for the model at hand, learns on conversations as `sft` does, and
the stage stores them as `techniques/<name>.safetensors`; a variant that trains them attaches them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from argus.core.registry import build
from argus.methods.learned import LearnedReducer
from argus.model.anatomy import anatomy
from argus.model.anatomy.base import Anatomy
from argus.training.objectives.sft import SFT, SFTOptions


class TechniqueOptions(SFTOptions):
    """How turns and rows are made, and the technique's own options."""

    technique: dict[str, Any] = Field(default_factory=dict, description="options of the technique that is trained")


class TechniqueObjective(SFT):
    """Subclasses name their technique and implement `loss`.

    Attributes:
        name: the technique's name.
        reducer: the technique, with parts that learn.
        anatomy: where the model's parts are.
    """

    Options: ClassVar[type[TechniqueOptions]] = TechniqueOptions
    options: TechniqueOptions
    name: ClassVar[str]
    reducer: LearnedReducer
    anatomy: Anatomy

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        self.anatomy = anatomy(model)
        self.reducer = build("reducer", self.name, self.options.technique)
        self.reducer.untrained(self.anatomy)

    def techniques(self) -> dict[str, nn.Module]:
        assert self.reducer.parts is not None  # made in `bind`
        return {self.name: self.reducer.parts}
