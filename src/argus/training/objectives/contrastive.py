"""Contrastive image-text learning with dense targets beside it.

CLIP (arXiv 2103.00020): for a batch of B pairs the logits are S = exp(t) I T^T and

    L_clip = (CE(S, arange B) + CE(S^T, arange B)) / 2

The contrastive loss alone teaches the CLS token; a patch learns little from it. So each patch is also asked what lies on
it, which the world knows exactly (colour, shape, texture, size, character):

    L = w_clip L_clip + w_dense mean_h CE_h(patch logits, truth)

with the empty class down-weighted, because most patches show the ground. Texts are the scenes' descriptions. Equal texts in
one batch count as each other's positives (soft targets spread over duplicates), so that simple scenes are not pushed apart.
Where several processes train, each compares its own pictures and texts with those of all, and gradients reach all: the mean of
their losses is the loss of the whole batch, as OpenCLIP's local loss has it.

Shapes: pixels (B, 3, H, W), texts (B, S), truth per head (B, gh, gw) with -1 where undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.model.dual_encoder import DualEncoder
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.image_processor import normalise
from argus.training.objectives.base import Batch, Item, Objective, of_all, text_number
from argus.world.domain import Domain, Drawing


class ContrastiveOptions(Options):
    """Weights of the parts."""

    clip: float = Field(1.0, ge=0, description="weight of the contrastive loss; 0 trains on dense targets alone")
    dense: float = Field(1.0, ge=0, description="weight of the dense targets; 0 is plain CLIP")
    empty: float = Field(0.2, gt=0, le=1, description="weight of the empty class in the dense targets")
    max_length: int = Field(77, ge=8, description="tokens of a text; CLIP's context length")


class Contrastive(Objective):
    """CLIP loss over pictures and descriptions, and cross-entropy over patches."""

    Options = ContrastiveOptions
    options: ContrastiveOptions
    needs_questions = False

    def bind(self, model: nn.Module, processor: Any) -> None:
        if not isinstance(model, DualEncoder):
            raise UnsupportedError(f"the contrastive objective trains a dual encoder, not a {type(model).__name__}")
        super().bind(model, processor)
        self.patch_size = model.vision_tower.patch_size
        self.statistics = pixel_statistics(model.config.vision_config)
        self.heads = list(model.config.dense_classes)

    def collate(self, items: Sequence[Item]) -> Batch:
        if any(isinstance(item, Sample) for item in items):
            raise UnsupportedError("the contrastive objective reads the world; files have no dense truth")
        drawings = [(d, domain) for d, domain in items]  # type: ignore[misc]
        pixels = np.stack([d.pixels for d, _ in drawings])
        batch: Batch = {"pixel_values": normalise(pixels, *self.statistics)}
        if self.options.clip:
            texts = [domain.describe(d.scene) for d, domain in drawings]
            batch.update(
                self.processor(texts, padding=True, truncation=True, max_length=self.options.max_length, return_tensors="pt")
            )
            batch["text"] = torch.tensor([text_number(text) for text in texts])  # (B,) the same of equal texts
        if self.options.dense:
            batch.update(dense_truth(drawings, pixels.shape[1] // self.patch_size, self.heads))
        return batch

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        output = model(batch["pixel_values"], batch.get("input_ids"), batch.get("attention_mask"))
        total = output.image_embeds.sum() * 0.0
        parts: dict[str, Tensor] = {}
        if self.options.clip:
            pictures, texts = of_all(output.image_embeds), of_all(output.text_embeds)  # (P B, E) of P processes
            logits = model.similarity(replace(output, text_embeds=texts))  # (B, P B)
            of_texts = model.similarity(replace(output, image_embeds=pictures)).T  # (B, P B)
            target = (batch["text"][:, None] == of_all(batch["text"])).float()
            target = target / target.sum(-1, keepdim=True)
            clip = (F.cross_entropy(logits, target) + F.cross_entropy(of_texts, target)) / 2
            total = total + self.options.clip * clip
            parts["clip"] = clip.detach()
            parts["retrieval"] = (target.gather(1, logits.argmax(-1, keepdim=True)) > 0).float().mean()
        if self.options.dense:
            dense, right = dense_loss(output.dense_logits, batch, self.options.empty)
            total = total + self.options.dense * dense
            parts.update(right, dense=dense.detach())
        return total, parts


def dense_truth(drawings: Sequence[tuple[Drawing, Domain]], grid: int, heads: Sequence[str]) -> dict[str, Tensor]:
    """What lies on each patch of the pictures, per head `dense_<head>`: classes (B, grid, grid), -1 where undefined."""
    truth = [domain.dense(drawing.scene, grid) for drawing, domain in drawings]
    return {f"dense_{head}": torch.from_numpy(np.stack([one[head] for one in truth])) for head in heads}


def dense_loss(logits: Mapping[str, Tensor], batch: Batch, empty: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy of the heads, and per head the share of the patches with something on them that it names.

    Args:
        logits: (B, N, classes) per head.
        batch: with what `dense_truth` gives.
        empty: weight of class 0.
    """
    losses: list[Tensor] = []
    right: dict[str, Tensor] = {}
    for head, raw in logits.items():
        rows = raw.float().flatten(0, 1)  # (B N, classes)
        truth = batch[f"dense_{head}"].flatten()  # (B N)
        weight = torch.ones(rows.shape[-1], device=rows.device)
        weight[0] = empty
        known = (truth >= 0).any()
        losses.append(F.cross_entropy(rows, truth, weight, ignore_index=-1) if known else rows.sum() * 0.0)
        shown = truth > 0
        if shown.any():
            right[head] = (rows.argmax(-1)[shown] == truth[shown]).float().mean()
    return torch.stack(losses).mean(), right
