"""`argus.attach(model, "fastervlm", keep=0.25)`: a technique on a loaded model, for as long as you want it.

with argus.attach(model, "fastervlm", keep=0.25) as attachment:
    model.generate(**inputs)
    attachment.kept      # which visual tokens went on, per picture and layer
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from argus.core.registry import build
from argus.methods.layer_plan import LayerPlan
from argus.methods.reduction.base import Reducer
from argus.model.anatomy import anatomy

_PLAN = "_argus_layer_plan"  # attribute of the root module while anything is attached


@dataclass(frozen=True, slots=True)
class Kept:
    """What went on of one crop in front of one decoder layer.

    Args:
        layer: 0-based decoder layer; 0 is before the language model.
        item, image, tile: row of the batch, picture of that row, crop (tile, frame) of that picture.
        grid: (rows, columns) of the crop's visual tokens.
        indices: (k,) raster indices of those that went on, ascending.
        before: how many there were before this drop.
        total: how many the crop has in the prompt; fewer than cells where padding is cut away.
    """

    layer: int
    item: int
    image: int
    tile: int
    grid: tuple[int, int]
    indices: Tensor
    before: int
    total: int

    def mask(self) -> Tensor:
        """(rows, columns) bool: True where a token went on."""
        mask = self.indices.new_zeros(self.grid[0] * self.grid[1]).bool()
        mask[self.indices] = True
        return mask.view(self.grid)


@dataclass(frozen=True, slots=True)
class Count:
    """Visual tokens of one item in front of one layer.

    Args:
        layer, item: as in `Kept`.
        total: what the pictures had at first.
        before: what reached the layer.
        kept: what went on.
        per_crop: what went on, for each crop.
    """

    layer: int
    item: int
    total: int
    before: int
    kept: int
    per_crop: tuple[int, ...]


class Attachment:
    """A technique on a model. A context manager; `detach` gives the model back as it was.

    Attributes:
        name: the technique's name.
        options: its options, all of them.
        depends_on_question: its choice reads the question, so a cached picture cannot serve several questions.
    """

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
        """Whether it still acts."""
        return self.reducer in self._plan.reducers

    def detach(self) -> None:
        """Takes the technique off the model; without effect when it is off already."""
        if self.attached:
            self._records = list(self._plan.reducers[self.reducer])
            self._plan.remove(self.reducer)
            if not self._plan.reducers:
                delattr(self._plan.anatomy.root, _PLAN)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    @property
    def kept(self) -> list[Kept]:
        """What it kept in the last prefill that had pictures: one entry per layer and crop, in the prompt's order."""
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

    @property
    def counts(self) -> list[Count]:
        """How many visual tokens went on in the last prefill that had pictures: one entry per layer and item."""
        rows: dict[tuple[int, int], list[Kept]] = {}
        for entry in self.kept:
            rows.setdefault((entry.layer, entry.item), []).append(entry)
        return [
            Count(
                layer,
                item,
                total=sum(k.total for k in crops),
                before=sum(k.before for k in crops),
                kept=sum(len(k.indices) for k in crops),
                per_crop=tuple(len(k.indices) for k in crops),
            )
            for (layer, item), crops in rows.items()
        ]


def attach(model: Any, name: str, **options: Any) -> Attachment:
    """Attaches a technique to a loaded model.

    Several can be attached; reducers act in the order of their layers, then in the order of attaching.

    Args:
        model: a model of a family that `argus.model.anatomy` knows, with or without PEFT adapters.
        name: a registered technique, for instance `fastervlm`.
        options: the technique's options.

    Raises:
        UnknownNameError: no such technique; the message names the nearest one.
        RecipeError: an option of the wrong name, type or range.
        UnsupportedError: the technique cannot work on this model, with the reason.
    """
    return Attachment(model, name, build("reducer", name, options))
