"""Masked autoencoding: an encoder sees a part of the patches, and a decoder fills in the others.

Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377). Targets are the pixels of a patch, normalised to mean 0 and
variance 1 within it; only hidden patches count.

    L = mean over hidden patches of |x_hat_p - (x_p - mean_p) / sqrt(var_p + 1e-6)|^2 / (3 p p)

Here it trains the masked autoencoder among an encoder's towers together with the decoder that a connector keeps for it (X-Former,
arXiv 2407.13851), so that a decoder that fits is there when the connector is trained. The variance is the unbiased one and three
quarters of the patches are hidden, as in the authors' code.

Shapes: pixels (B, 3, H, W) -> patches (B, N, 3 p p), as (row, column, channel) within a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.core.images import load_image
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.model.connectors.x_former import XFormer
from argus.model.encoders.comm import Comm
from argus.model.features import VisualFeatures
from argus.training.objectives.base import Batch, Item, Objective


class MAEOptions(Options):
    """How much is hidden."""

    mask: float = Field(0.75, gt=0, lt=1, description="share of the patches that is hidden")


class MAE(Objective):
    """Reconstruction by the second tower of a pair and a connector's decoder."""

    Options = MAEOptions
    options: MAEOptions
    needs_questions = False

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        check_pair(model)

    def collate(self, items: Sequence[Item]) -> Batch:
        pictures = [
            load_image(item.images()[0], where=item.id) if isinstance(item, Sample) else Image.fromarray(item[0].pixels)
            for item in items
        ]
        return {"pixel_values": self.processor.image_processor(pictures)["pixel_values"]}

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tower, connector = model.model.vision_tower, model.model.multi_modal_projector
        pixels = tower.normalised(batch["pixel_values"], 1)
        shown, hidden, restore = masked_states(tower, pixels, self.options.mask)
        made = connector.decode(connector.detail(shown), restore)
        loss = reconstruction_loss(made, pixels, hidden, tower.towers[1].patch_size)
        return loss, {"reconstruction": loss.detach()}


def check_pair(model: Any) -> None:
    """Refuse models that have no pair of encoders and no decoder.

    Raises:
        UnsupportedError: with the reason.
    """
    root = getattr(model, "model", model)
    tower, connector = getattr(root, "vision_tower", None), getattr(root, "multi_modal_projector", None)
    kinds = [getattr(one.config, "model_type", "") for one in tower.towers] if isinstance(tower, Comm) else []
    if len(kinds) != 2 or kinds[1] != "vit_mae":
        raise UnsupportedError(
            f"reconstruction needs a pair of towers, the second a masked autoencoder; here are {kinds or type(tower).__name__}.",
            hint="encoder: {comm: {towers: [..., {encoder: {transformers: {model_type: vit_mae, ...}}, merge: select}]}}",
        )
    if not isinstance(connector, XFormer) or connector.decoder is None:
        raise UnsupportedError("reconstruction needs the decoder of an x_former connector.", hint="Give it `decoder`.")
    assert connector.options.decoder is not None
    assert isinstance(tower, Comm)
    sides = (tower.image_size // tower.patch_size, tower.towers[1].patch_size, connector.options.decoder.patch)
    if tower.towers[1].image_size != sides[0] * sides[1] or sides[1] != sides[2]:
        raise UnsupportedError(
            f"reconstruction needs patches of one size: {tower.patch_size} px, {sides[1]} px, in the decoder {sides[2]} px"
        )


def masked_states(pair: Any, pixels: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """What the masked autoencoder of a pair sees of a part of the patches.

    Args:
        pair: the encoder; its second tower is the masked autoencoder.
        pixels: (B, 3, H, W), normalised for that tower.

    Returns:
        tokens (B, V, C) of the visible patches, of the layers that the pair gives of whole pictures; hidden (B, N) 1 where a
        patch is not seen, restore (B, N) the place of each patch among the visible and, behind them, the hidden ones.
    """
    tower = pair.towers[1]
    inner = tower.tower
    usual, inner.config.mask_ratio = inner.config.mask_ratio, share
    try:
        output = inner(pixels.to(tower.dtype), output_hidden_states=True)
    finally:
        inner.config.mask_ratio = usual
    states = output.hidden_states
    tokens = (output.last_hidden_state if tower.final_norm else states[tower.feature_layer])[:, 1:]
    shown = VisualFeatures(tokens=tokens, grid=(1, tokens.shape[1]), hidden_states=tuple(states))
    return pair.merges[1](shown), output.mask, output.ids_restore


def patches(pixels: Tensor, side: int) -> Tensor:
    """Pixels (B, 3, H, W) -> (B, N, 3 p p)."""
    x = pixels.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, 3, h, p, w, p)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def reconstruction_loss(made: Tensor, pixels: Tensor, hidden: Tensor, side: int) -> Tensor:
    """Mean squared error on the hidden patches, each normalised.

    Args:
        made: (B, N, 3 p p).
        hidden: (B, N), 1 where a patch counts.
    """
    target = patches(pixels, side).float()
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    error = (made.float() - target).square().mean(-1)  # (B, N)
    return torch.where(hidden > 0, error, 0).sum() / hidden.sum()
