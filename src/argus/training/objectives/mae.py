"""Masked autoencoding: an encoder sees a part of the patches, and a decoder fills in the others.

Masked Autoencoders Are Scalable Vision Learners (arXiv 2111.06377). Targets are the pixels of a patch, normalised to mean 0 and
variance 1 within it; only hidden patches count.

    L = mean over hidden patches of |x_hat_p - (x_p - mean_p) / sqrt(var_p + 1e-6)|^2 / (3 p p)

It trains a masked autoencoder that is the model's encoder, or the second tower of a pair. The decoder is the one that a connector
keeps for it (X-Former, arXiv 2407.13851), so that one that fits is there when the connector is trained; or, with `decoder`, one
beside the model, named `mae` as a part, that reads the tower's own last states and goes when the stage is over. The variance is
the unbiased one and three quarters of the patches are hidden, as in the authors' code.

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
from argus.model.connectors.x_former import DecoderOptions, XFormer, filled_in, masked_decoder
from argus.model.encoders.comm import Comm
from argus.model.features import VisualFeatures
from argus.training.objectives.base import Batch, Item, Objective


class MAEOptions(Options):
    """How much is hidden."""

    mask: float = Field(0.75, gt=0, lt=1, description="share of the patches that is hidden")
    decoder: DecoderOptions | None = Field(None, description="a decoder beside the model; the connector's when not given")


class MAE(Objective):
    """Reconstruction by a tower and a decoder."""

    Options = MAEOptions
    options: MAEOptions
    needs_questions = False

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        self.parts = nn.ModuleDict()
        if self.options.decoder is None:
            check_pair(model)
            return
        tower, grid = autoencoder(model), autoencoder(model).image_size // self.options.decoder.patch
        if tower.patch_size != self.options.decoder.patch:
            raise UnsupportedError(
                f"reconstruction needs patches of one size: {tower.patch_size} px, in the decoder {self.options.decoder.patch} px"
            )
        self.parts["decoder"] = masked_decoder(self.options.decoder, tower.hidden_size, (grid, grid))
        self.parts.to(next(model.parameters()).device)

    def techniques(self) -> dict[str, nn.Module]:
        return {"mae": self.parts} if self.parts else {}

    def collate(self, items: Sequence[Item]) -> Batch:
        pictures = [
            load_image(item.images()[0], where=item.id) if isinstance(item, Sample) else Image.fromarray(item[0].pixels)
            for item in items
        ]
        return {"pixel_values": self.processor.image_processor(pictures)["pixel_values"]}

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        whole, connector, tower = model.model.vision_tower, model.model.multi_modal_projector, autoencoder(model)
        pixels = batch["pixel_values"] if tower is whole else whole.normalised(batch["pixel_values"], 1)
        if self.parts:
            seen, hidden, restore = masked_features(tower, pixels, self.options.mask)
            made = filled_in(self.parts["decoder"], seen.tokens, restore)
        else:
            shown, hidden, restore = masked_states(whole, pixels, self.options.mask)
            made = connector.decode(connector.detail(shown), restore)
        loss = reconstruction_loss(made, pixels, hidden, tower.patch_size)
        return loss, {"reconstruction": loss.detach()}


def autoencoder(model: Any) -> Any:
    """The masked autoencoder: a model's encoder, or the second tower of a pair.

    Raises:
        UnsupportedError: there is none.
    """
    whole: Any = getattr(getattr(model, "model", model), "vision_tower", None)
    towers = list(whole.towers) if isinstance(whole, Comm) and len(whole.towers) == 2 else [whole]
    kinds = [getattr(getattr(one, "config", None), "model_type", type(one).__name__) for one in towers]
    if kinds[-1] != "vit_mae":
        raise UnsupportedError(
            f"reconstruction needs a masked autoencoder, alone or as the second of a pair of towers; here are {kinds}.",
            hint="encoder: {comm: {towers: [..., {encoder: {transformers: {model_type: vit_mae, ...}}, merge: select}]}}",
        )
    return towers[-1]


def check_pair(model: Any) -> None:
    """Refuse models that have no pair of encoders and no decoder.

    Raises:
        UnsupportedError: with the reason.
    """
    root = getattr(model, "model", model)
    tower, connector = getattr(root, "vision_tower", None), getattr(root, "multi_modal_projector", None)
    if autoencoder(model) is tower:
        raise UnsupportedError("this needs a pair of towers, of which the masked autoencoder is the second.")
    if not isinstance(connector, XFormer) or connector.decoder is None:
        raise UnsupportedError("reconstruction needs the decoder of an x_former connector.", hint="Give it `decoder`.")
    assert connector.options.decoder is not None
    assert isinstance(tower, Comm)
    sides = (tower.image_size // tower.patch_size, tower.towers[1].patch_size, connector.options.decoder.patch)
    if tower.towers[1].image_size != sides[0] * sides[1] or sides[1] != sides[2]:
        raise UnsupportedError(
            f"reconstruction needs patches of one size: {tower.patch_size} px, {sides[1]} px, in the decoder {sides[2]} px"
        )


def masked_features(tower: Any, pixels: Tensor, share: float) -> tuple[VisualFeatures, Tensor, Tensor]:
    """What a masked autoencoder sees of a part of the patches.

    Args:
        pixels: (B, 3, H, W), normalised for it.

    Returns:
        features of the V visible patches; hidden (B, N) 1 where a patch is not seen, restore (B, N) the place of each patch
        among the visible and, behind them, the hidden ones.
    """
    inner = tower.tower
    usual, inner.config.mask_ratio = inner.config.mask_ratio, share
    try:
        output = inner(pixels.to(tower.dtype), output_hidden_states=True)
    finally:
        inner.config.mask_ratio = usual
    states = output.hidden_states
    tokens = (output.last_hidden_state if tower.final_norm else states[tower.feature_layer])[:, 1:]
    seen = VisualFeatures(tokens=tokens, grid=(1, tokens.shape[1]), hidden_states=tuple(states))
    return seen, output.mask, output.ids_restore


def masked_states(pair: Any, pixels: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `masked_features`, of the second tower of a pair: tokens (B, V, C) of the layers that it gives of whole pictures."""
    seen, hidden, restore = masked_features(pair.towers[1], pixels, share)
    return pair.merges[1](seen), hidden, restore


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
