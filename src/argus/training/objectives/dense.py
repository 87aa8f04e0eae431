"""What lies on each patch, told by the world: trains the vision tower of a composed model, or probes a frozen one.

One linear head per attribute (colour, shape, texture, size, character) reads the tokens that the connector gets,

    L = mean_h CE(W_h LN(token), class of what lies on the patch),       the empty class weighs `empty`

as the dense part of the contrastive objective does for a dual encoder. The heads stand beside the model, named `dense` as a
part, and go when the stage is over: `train: [vision_tower, dense]` teaches a tower, `train: [dense]` asks what can be read from
it. A stage logs per head the share of the patches with something on them that is named rightly; every picture of a stage is
new, so the last number is that of pictures never seen.

A convolutional tower of a large stride has few tokens, and so little is told per picture: with `maps` the last of its earlier
stages are asked as well, each by heads of its own on its own, finer grid, and all losses are added.

Shapes: pixels (B, 3, H, W) -> tokens (B, N, C) -> logits (B, N, classes) per head; truth (B, h, w), h w = N. Pictures go to the
tower at the size they are drawn in, whatever the view, because a tile of another view shows another grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.model.encoders.base import Tower
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.image_processor import normalise
from argus.training.objectives.base import Batch, Item, Objective
from argus.training.objectives.contrastive import dense_loss, dense_truth
from argus.world.domain import DENSE_CLASSES


class DenseOptions(Options):
    """How the classes weigh, and where they are looked for."""

    empty: float = Field(0.15, gt=0, le=1, description="weight of the class of patches with nothing on them")
    maps: int = Field(0, ge=0, description="earlier stages of a convolutional tower that are asked too, from the last but one")


class Heads(nn.Module):
    """A norm and a linear head per attribute: (B, N, C) -> (B, N, classes) each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in DENSE_CLASSES.items()})

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        seen = self.norm(tokens)
        return {name: head(seen) for name, head in self.heads.items()}


class Dense(Objective):
    """Cross-entropy over patches."""

    Options = DenseOptions
    options: DenseOptions
    needs_questions = False

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        found = getattr(getattr(model, "model", model), "vision_tower", None)
        if not isinstance(found, Tower):
            raise UnsupportedError(f"a {type(model).__name__} has no vision tower of ours, whose patches could be asked")
        tower: Any = found
        widths = (getattr(tower, "map_widths", None) or ())[:-1]
        if self.options.maps > len(widths):
            raise UnsupportedError(f"{self.options.maps} earlier stages are to be asked, and this tower has {len(widths)}")
        self.patch_size, self.statistics = tower.patch_size, pixel_statistics(tower.config)
        self.strides = {f"map_{k}": tower.patch_size // 2**k for k in range(1, self.options.maps + 1)}
        heads = {"tokens": Heads(tower.hidden_size), **{f"map_{k}": Heads(widths[-k]) for k in range(1, self.options.maps + 1)}}
        self.parts = nn.ModuleDict(heads).to(next(model.parameters()).device)

    def techniques(self) -> dict[str, nn.Module]:
        return {"dense": self.parts}

    def collate(self, items: Sequence[Item]) -> Batch:
        if any(isinstance(item, Sample) for item in items):
            raise UnsupportedError("the dense objective reads the world; files have no dense truth")
        drawings = [(drawing, domain) for drawing, domain in items]  # type: ignore[misc]
        pixels = np.stack([drawing.pixels for drawing, _ in drawings])
        side, names = pixels.shape[1], list(DENSE_CLASSES)
        batch: Batch = {
            "pixel_values": normalise(pixels, *self.statistics),
            **dense_truth(drawings, side // self.patch_size, names),
        }
        for name, stride in self.strides.items():
            batch.update({f"{name}_{key}": cells for key, cells in dense_truth(drawings, side // stride, names).items()})
        return batch

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        features = model.model.vision_tower(batch["pixel_values"])
        loss, right = dense_loss(self.parts["tokens"](features.tokens), batch, self.options.empty)
        shown = {**right, "dense": loss.detach()}
        for k, name in enumerate(self.strides, start=1):
            cells = features.feature_maps[-1 - k].flatten(2).transpose(1, 2)  # (B, n, C_k)
            truth = {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(f"{name}_")}
            loss = loss + dense_loss(self.parts[name](cells), truth, self.options.empty)[0]
        return loss, shown
