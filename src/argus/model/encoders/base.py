"""What a vision tower is to the rest of Argus: a module whose forward gives `VisualFeatures`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from transformers import PretrainedConfig

from argus.model.features import VisualFeatures


@runtime_checkable
class Encoder(Protocol):
    """The contract of `model.vision_tower`.

    Attributes:
        hidden_size: width C of the tokens.
        patch_size, image_size: sides in pixels of a patch and of the picture it was trained on.
        has_cls: whether there is a CLS token, and so a CLS attention row.
    """

    hidden_size: int
    patch_size: int
    image_size: int
    has_cls: bool

    def __call__(self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False) -> VisualFeatures:
        """Encode tiles (B, 3, H, W)."""
        ...


def build_tower(config: PretrainedConfig, feature_layer: int = -2) -> nn.Module:
    """The tower for a vision config: Argus's own ViT, or a tower of transformers."""
    from argus.model.encoders.transformers_tower import TransformersTower
    from argus.model.encoders.vit import ViT, ViTConfig

    return ViT(config) if isinstance(config, ViTConfig) else TransformersTower(config, feature_layer)
