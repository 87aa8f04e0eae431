"""Techniques with weights of their own: routers, predictors, thresholds, trained beside a model and attached with it.

Their parts are made for a model's widths (`make`), trained by an objective, and stored as one safetensors file, which the option
`weights` names. A recipe fills the option in with what the variant's own stages trained; in Python,

    argus.attach(model, "dyvte", weights="runs/.../stages/.../techniques/dyvte.safetensors")
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from pydantic import Field
from torch import nn

from argus.core.errors import ModelError, UnsupportedError
from argus.methods.reduction.base import Reducer, ReducerOptions
from argus.model.anatomy.base import Anatomy


class LearnedOptions(ReducerOptions):
    """Options of reducers with weights."""

    weights: str | None = Field(None, description="safetensors file of the trained parts; a recipe knows what its stages trained")


class LearnedReducer(Reducer):
    """A reducer whose choice is trained.

    Attributes:
        parts: what is trained; made when the reducer meets its model.
    """

    options: LearnedOptions
    parts: nn.Module | None = None

    @abstractmethod
    def make(self, anatomy: Anatomy) -> nn.Module:
        """New parts, in fp32, for a model's widths and depth."""

    def untrained(self, anatomy: Anatomy) -> nn.Module:
        """The parts as an objective trains them: those of `weights`, or new ones."""
        self.parts = self.make(anatomy)
        if self.options.weights is not None:
            load_parts(self.parts, Path(self.options.weights))
        return self.parts.to(next(anatomy.layers.parameters()).device)

    def check(self, anatomy: Anatomy) -> None:
        if self.parts is None:
            if self.options.weights is None:
                raise UnsupportedError(
                    "its parts have to be trained before it is attached.",
                    hint="Name a stage that trains them under 'train' of the variant, or their file under 'weights'.",
                )
            self.untrained(anatomy).requires_grad_(False).eval()
        super().check(anatomy)


def save_parts(parts: nn.Module, file: Path) -> None:
    """Write the weights of `parts`; the file is whole or not there."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({name: value.detach().cpu().contiguous() for name, value in parts.state_dict().items()}, part)
    part.replace(file)


def load_parts(parts: nn.Module, file: Path) -> None:
    """Read weights into `parts`.

    Raises:
        ModelError: no such file, or weights for a model of other sizes.
    """
    from safetensors.torch import load_file

    if not file.is_file():
        raise ModelError("no such file of trained parts", where=str(file))
    try:
        parts.load_state_dict(load_file(file))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"the trained parts do not fit the model: {reason}", where=str(file)) from None
