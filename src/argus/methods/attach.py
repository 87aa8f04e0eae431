"""`argus.attach(model, "fastervlm", keep=0.25)`: a technique on a loaded model, for as long as you want it.

with argus.attach(model, "fastervlm", keep=0.25) as attachment:
    model.generate(**inputs)
    attachment.kept      # which visual tokens went on, per picture and layer
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from argus.core.registry import build, technique
from argus.methods.attached import Attached, Kept
from argus.methods.decoding.attachment import DecodingAttachment
from argus.methods.layer_plan import LayerPlan
from argus.methods.reduction.base import Reducer
from argus.model.anatomy import anatomy

_PLAN = "_argus_layer_plan"  # attribute of the root module while anything is attached


class Attachment(Attached):
    """A reduction on a model."""

    def __init__(self, model: nn.Module, name: str, reducer: Reducer) -> None:
        self.name, self.options, self.reducer = name, reducer.options, reducer
        self.depends_on_question = reducer.depends_on_question
        parts = anatomy(model)
        plan = getattr(parts.root, _PLAN, None)
        if plan is None:
            plan = LayerPlan(parts)
        try:
            plan.add(reducer)
        except Exception:
            if not plan.reducers:
                plan.close()
            raise
        self._plan: LayerPlan = plan
        setattr(parts.root, _PLAN, plan)

    @property
    def attached(self) -> bool:
        return self.reducer in self._plan.reducers

    def detach(self) -> None:
        if self.attached:
            self._records = list(self._plan.reducers[self.reducer])
            self._plan.remove(self.reducer)
            self._plan.prompts = None
            if not self._plan.reducers:
                delattr(self._plan.anatomy.root, _PLAN)

    def prompts(self, where: Tensor) -> None:
        """Says where the next inputs hold prompts, (B, S) bool: rows for training hold answers, too, which no choice may read."""
        self._plan.prompts = where

    @property
    def kept(self) -> list[Kept]:
        entries = []
        for record in self._plan.reducers[self.reducer] if self.attached else self._records:
            tokens = record.tokens
            sizes = [(tokens.crop == number).sum() for number in range(len(tokens.crops))]
            parts = zip(
                tokens.crops,
                tokens.cell.split([int(s) for s in sizes]),
                record.kept.split([int(s) for s in sizes]),
                record.present.split([int(s) for s in sizes]),
                strict=True,
            )
            for crop, cells, kept, present in parts:
                entries.append(
                    Kept(record.layer, crop.item, crop.image, crop.tile, crop.grid, cells[kept], int(present.sum()), len(cells))
                )
        return entries


def attach(model: Any, name: str, **options: Any) -> Attached:
    """Attaches a technique to a loaded model.

    Several can be attached; reducers act in the order of their layers, then in the order of attaching. Of decoding methods there
    can be one.

    Args:
        model: a model of a family that `argus.model.anatomy` knows, with or without PEFT adapters.
        name: a registered reducer or decoding method, for instance `fastervlm` or `damro`.
        options: the technique's options.

    Raises:
        UnknownNameError: no such technique; the message names the nearest one.
        RecipeError: an option of the wrong name, type or range.
        UnsupportedError: the technique cannot work on this model, with the reason.
    """
    kind = technique(name).kind
    made = build(kind, name, options)
    return DecodingAttachment(model, name, made) if kind == "decoding" else Attachment(model, name, made)
