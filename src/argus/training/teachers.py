"""Teachers: what an expert knows about a picture, as embeddings that a model is to predict.

Two kinds, by the option that is given:

    truth     the world's own maps of a drawing (`Domain.maps`), embedded patch by patch: no expert is needed, none can err
    encoder   a stored vision tower of any family that Argus knows, frozen: its tokens, the mean of some of its layers, or its
              pooled state; it looks at every picture, drawn or from a file

The embedding of a truth is fixed. A cell of 8 x 8 pixels is cut into blocks, and of each block it is told which share of its
pixels has each class: for `depth`, in 4 x 4 blocks, the ground and the layers 1, 2, 3 and above; for `segmentation`, in 2 x 2
blocks, the colour and the shape of the thing that owns the pixel, or the ground,

    target = 8 (shares - shares of a cell of ground alone)

so that ground is 0, as most of every picture is it and would make all pictures look alike, and elements deviate by about 1, as
those of an expert's features do. Which number a thing has in its scene cannot be seen, so it is no target.

Where the expert's grid is another than the wanted one, its tokens are resized to it, bilinearly without aligned corners (OLA-VLM,
arXiv 2412.09585).

Shapes: targets (P, n, E) of P pictures, n cells of a square grid or 1 for what is pooled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL.Image import Image, Resampling
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.image_processor import normalise
from argus.model.stored_tower import load_tower
from argus.training.objectives.base import Item
from argus.world.domain import DENSE_CLASSES

CELL = 8  # pixels per side of a cell
GAIN = 8.0  # by which shares are multiplied
LAYERS = 4  # the ground, two layers, and what lies higher
TRUTHS = {  # what is told of a map: blocks per side of a cell, and heads of `Domain.maps` with their classes
    "depth": (4, {"depth": LAYERS}),
    "segmentation": (2, {"colour": DENSE_CLASSES["colour"], "shape": DENSE_CLASSES["shape"]}),
}


class TeacherOptions(Options):
    """What the expert is."""

    truth: Literal["depth", "segmentation"] | None = Field(None, description="the world's own map")
    encoder: str | dict[str, dict[str, Any]] | None = Field(None, description="a stored tower: a reference, or {name: options}")
    size: int | None = Field(None, ge=8, description="side in pixels at which the tower looks; its own when not given")
    layers: list[int] = Field(default_factory=list, description="hidden states of the tower whose mean counts, not its tokens")
    pooled: bool = Field(False, description="one embedding of the picture: the tower's pooled state")

    @model_validator(mode="after")
    def _one(self) -> TeacherOptions:
        if (self.truth is None) == (self.encoder is None):
            raise ValueError("give either 'truth' or 'encoder'")
        if self.truth is not None and (self.size or self.layers or self.pooled):
            raise ValueError("size, layers and pooled are a tower's")
        if self.pooled and self.layers:
            raise ValueError("what is pooled is the last state; leave 'layers' out")
        return self


class Teacher:
    """`collate` reads pictures in the data process, `targets` makes embeddings of that on the device.

    Args:
        cells: n, a square number, or 1.

    Raises:
        UnsupportedError: another number, or a teacher of the wrong kind for it.

    Attributes:
        width: E.
    """

    def __init__(self, options: TeacherOptions, cells: int) -> None:
        self.options, self.cells, self.side = options, cells, math.isqrt(cells)
        self.tower: Any = None
        self.width: int
        if self.side**2 != cells:
            raise UnsupportedError(f"a map of {cells} cells is no square.", hint=f"Set cells to {self.side**2}.")
        if options.pooled != (cells == 1):
            wanted = "one embedding of the whole picture" if cells == 1 else f"a map of {self.side} x {self.side} cells"
            raise UnsupportedError(f"here {wanted} is to be predicted: 'pooled' must be {str(cells == 1).lower()}")
        if options.truth is not None:
            blocks, heads = TRUTHS[options.truth]
            self.width = blocks * blocks * sum(heads.values())
            return
        self.tower = load_tower(options.encoder)
        self.width = int(self.tower.hidden_size)
        self.size: int = options.size or self.tower.image_size

    def collate(self, owners: Sequence[Item], pictures: Sequence[Image]) -> tuple[Tensor, Tensor]:
        """(P, ...) what `targets` reads, and (P,) bool which pictures the expert knows.

        Args:
            owners: the drawing or sample that shows each picture.
        """
        if self.options.truth is None:
            sized = [p.convert("RGB").resize((self.size, self.size), Resampling.BICUBIC) for p in pictures]
            pixels = normalise(np.stack([np.asarray(p) for p in sized]), *pixel_statistics(self.tower.config))
            return pixels, torch.ones(len(pictures), dtype=torch.bool)
        found = [self._truth(owner) for owner in owners]
        nothing = torch.zeros(self.cells, self.width)
        return torch.stack([nothing if f is None else f for f in found]), torch.tensor([f is not None for f in found])

    def _truth(self, owner: Item) -> Tensor | None:
        """(n, E) of a drawing; none where the domain has no maps, and of samples, whose pictures nobody knows."""
        maps = {} if isinstance(owner, Sample) else owner[1].maps(owner[0].scene, self.side * CELL)
        if not maps:
            return None
        blocks, heads = TRUTHS[str(self.options.truth)]
        return torch.cat([self._shares(torch.from_numpy(maps[head]), blocks, many) for head, many in heads.items()], -1)

    def _shares(self, classes: Tensor, blocks: int, many: int) -> Tensor:
        """Classes (H, H) of pixels, 0 the ground -> (n, blocks blocks many), of each class in each block of each cell."""
        one = GAIN * F.one_hot(classes.clamp(max=many - 1), many).float()  # (H, H, many)
        one[..., 0] -= GAIN
        x = one.unflatten(0, (self.side, blocks, -1)).mean(2).unflatten(2, (self.side, blocks, -1)).mean(4)
        return x.transpose(1, 2).flatten(0, 1).flatten(1)  # (side, side, b, b, many) -> (n, b b many)

    @torch.no_grad()
    def targets(self, given: Tensor) -> Tensor:
        """(P, n, E), of what `collate` read."""
        if self.options.truth is not None:
            return given
        tower = self.tower.to(given.device)
        seen = tower(given, hidden_states=bool(self.options.layers), pooled=self.options.pooled)
        if self.options.pooled:
            return seen.pooled[:, None]
        tokens, count = seen.tokens, seen.tokens.shape[1]
        if self.options.layers:
            tokens = torch.stack([seen.hidden_states[layer][:, -count:] for layer in self.options.layers]).mean(0)
        maps = tokens.transpose(1, 2).unflatten(2, seen.grid).float()  # (P, E, h, w)
        return F.interpolate(maps, (self.side, self.side), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
