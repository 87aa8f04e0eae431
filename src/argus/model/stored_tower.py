"""Vision towers with the weights of a stored model: of a dual encoder, a composed model, or any vision model of transformers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

from argus.core.errors import ModelError, RecipeError
from argus.core.registry import build
from argus.model.config import ArgusConfig
from argus.model.dual_encoder import DualEncoderConfig
from argus.model.encoders.base import TOWERS, build_tower
from argus.model.load import load, read_weights, reading, resolve


def load_tower(spec: Any) -> nn.Module:
    """A stored vision tower, frozen, for its features alone.

    Args:
        spec: as the `encoder` of a composed model: a reference, or {name: options} around one.

    Raises:
        RecipeError: an encoder without stored weights.
    """
    tower, config = stored_tower(spec)
    if tower is None:
        raise RecipeError(f"an encoder that is asked what it knows needs stored weights; '{config.model_type}' would be new")
    return tower.requires_grad_(False).eval()


def stored_tower(spec: Any) -> tuple[nn.Module | None, PretrainedConfig]:
    """A tower with its weights, or none where they are new, and its config."""
    if not isinstance(spec, str):
        return _named_encoder(*next(iter(spec.items())))
    place = resolve(spec)
    with reading(spec):
        config = AutoConfig.from_pretrained(place)
    if isinstance(config, DualEncoderConfig):
        tower: Any = load(spec, device="cpu")[0].vision_tower
        return tower, tower.config
    if isinstance(config, ArgusConfig):
        return load(spec, device="cpu")[0].model.vision_tower, config.vision_config
    if config.model_type in TOWERS:
        return read_weights(AutoModel, spec, place, dtype=torch.float32), config
    vision = getattr(config, "vision_config", config)
    tower = build_tower(vision)
    tower.tower = read_weights(AutoModel, spec, place, config=vision, dtype=torch.float32, tail=getattr(tower, "unread", None))
    with suppress(OSError):  # without that file the family's statistics count
        stored, _ = BaseImageProcessor.get_image_processor_dict(place)
        if stored.get("do_normalize", True) and "image_mean" in stored:
            vision.image_mean, vision.image_std = stored["image_mean"], stored["image_std"]
    return tower, vision


def _named_encoder(name: str, options: Any) -> tuple[nn.Module | None, PretrainedConfig]:
    """An encoder of the registry. One that is made of others takes their weights, where they have any."""
    made = build("encoder", name, options)
    inner = [stored_tower(part) for part in getattr(made, "parts", ())]
    config = made.config(*(config for _, config in inner))
    stored = made.weights() if hasattr(made, "weights") else None
    if stored is not None:
        found: Any = build_tower(config)
        missing, unexpected = found.load_state_dict(stored, strict=False)
        if missing or unexpected:
            raise ModelError(f"encoder '{name}': weights missing {missing[:3]}, not known {unexpected[:3]}")
        return found, config
    if all(tower is None for tower, _ in inner):
        return None, config
    if len(inner) == 1 and inner[0][1] is config:  # the stored model itself, read at another layer
        tower: Any = build_tower(config)
        tower.load_state_dict(inner[0][0].state_dict())  # type: ignore[union-attr]
        return tower, config
    whole: Any = build_tower(config)
    for slot, (tower, _) in zip(whole.towers, inner, strict=True):
        if tower is not None:
            slot.load_state_dict(tower.state_dict())
    return whole, config
