"""Pixel normalisation of vision towers: the mean and deviation per channel that their weights were trained with.

    x = (pixels in 0..1 - mean) / deviation

Shapes: both (3,). They are those of the published weights of each family, as transformers names them.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PretrainedConfig
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

# Mean and deviation of the pixels that the published weights of a family were trained with.
CLIP = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
HALF = (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)
STATISTICS = {
    "clip_vision_model": CLIP,
    "chinese_clip_vision_model": CLIP,
    "aimv2_vision_model": CLIP,
    "siglip_vision_model": HALF,
    "siglip2_vision_model": HALF,
    "vit": HALF,
}


def pixel_statistics(config: PretrainedConfig) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation per channel that a tower wants its pixels (0..1) normalised with.

    A config's own `image_mean` and `image_std` count; else the family's, which are ImageNet's for InternViT, DINOv2, MAE, DeiT.
    """
    if getattr(config, "image_mean", None):
        return config.image_mean, config.image_std
    return STATISTICS.get(config.model_type, (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
