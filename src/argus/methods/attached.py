"""What every technique on a model has in common: a name, options, `detach`, and what went on of each picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from torch import Tensor

from argus.core.registry import Options


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


class Attached(ABC):
    """A technique on a model. A context manager; `detach` gives the model back as it was.

    Attributes:
        name: the technique's name.
        options: its options, all of them.
        depends_on_question: what it does depends on the question, so a cached picture cannot serve several questions.
    """

    name: str
    options: Options
    depends_on_question: bool

    @property
    @abstractmethod
    def attached(self) -> bool:
        """Whether it still acts."""

    @abstractmethod
    def detach(self) -> None:
        """Takes the technique off the model; without effect when it is off already."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    @property
    def kept(self) -> list[Kept]:
        """What it kept in the last prefill that had pictures, one entry per layer and crop, in the prompt's order.

        Empty for techniques that drop nothing.
        """
        return []

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
