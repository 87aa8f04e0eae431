"""Patch naming: a visual token starts as the words for what lies on its patch.

The world knows what is on every patch (colour, shape, texture, size, character). The connector is asked to name it in the
language model's own embeddings: with the words w_c of one attribute, centred and scaled to unit mean square,

    L = mean over attributes of CE(v_p . w_c, c) over the patches that show one,  plus  e |v_p|^2 / |E|^2 over empty ground

A language model whose head is tied to its embeddings can then read a patch out by copying it, so that the stages that follow
learn where to look and need not learn a new code first. Only the connector should learn (`train: [multi_modal_projector]`).

Shapes: pixels (B, 3, H, W) -> visual tokens v (B, N, D); truth per head (B, gh, gw). Needs a connector that keeps the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.training.objectives.base import Batch, Item, Objective
from argus.world.domain import CHARACTERS, COLOURS, SHAPES, SIZES, TEXTURES

WORDS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "texture": TEXTURES,
    "size": SIZES,
    "character": tuple(CHARACTERS),
}


class NamingOptions(Options):
    """Weight of the ground."""

    empty: float = Field(0.03, ge=0, le=1, description="weight of patches with nothing on them")


class Naming(Objective):
    """Cross-entropy of the words that visual tokens stand for."""

    Options = NamingOptions
    options: NamingOptions
    needs_questions = False

    def bind(self, model: nn.Module, processor: Any) -> None:
        config: Any = model.config
        if config.model_type != "argus":
            raise UnsupportedError(f"patch naming reads the grid of a composed model, not of '{config.model_type}'")
        super().bind(model, processor)
        self.grid = processor.grid[0]
        self.tokens = {
            head: [processor.tokenizer(f" {w}", add_special_tokens=False).input_ids for w in WORDS[head]] for head in WORDS
        }

    def collate(self, items: Sequence[Item]) -> Batch:
        if any(isinstance(item, Sample) for item in items):
            raise UnsupportedError("patch naming reads the world; files have no dense truth")
        pictures = [Image.fromarray(drawing.pixels) for drawing, _ in items]  # type: ignore[misc]
        batch: Batch = {"pixel_values": self.processor.image_processor(pictures)["pixel_values"]}
        truth = [domain.dense(drawing.scene, self.grid) for drawing, domain in items]  # type: ignore[misc]
        for head in WORDS:
            batch[head] = torch.from_numpy(np.stack([t[head] for t in truth])).clamp(min=0)
        return batch

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        table = model.get_input_embeddings().weight.detach().float()
        seen = model.get_image_features(batch["pixel_values"]).float()  # (B, N, D)
        losses: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        named = torch.zeros(seen.shape[:2], dtype=torch.bool, device=seen.device)
        for head, ids in self.tokens.items():
            words = torch.stack([table[i].mean(0) for i in ids])  # (classes, D)
            words = words - words.mean(0)
            words = words / words.square().sum(-1).mean()
            truth = batch[head].flatten(1)  # (B, N), 0 where the attribute is not shown
            there = truth > 0
            named |= there
            if there.any():
                logits = seen[there] @ words.T
                losses.append(F.cross_entropy(logits, truth[there] - 1))
                parts[head] = (logits.argmax(-1) + 1 == truth[there]).float().mean()
        empty = seen[~named].square().sum(-1).mean() / table.square().sum(-1).mean()
        return torch.stack(losses).mean() + self.options.empty * empty, parts
