"""LLaVA as transformers writes it: ViT, per-token MLP, causal language model; every picture is one crop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.model.anatomy.base import Anatomy, Piece, attention_of, encoder_blocks


class Llava(Anatomy):
    """LLaVA-1.5 and models of its class (`LlavaForConditionalGeneration`) with CLIP, SigLIP or another ViT."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if self.config.vision_config.model_type == "pixtral":
            raise UnsupportedError("LLaVA with a Pixtral encoder (one sequence for all pictures) is not supported.")

    @property
    def vision_tower(self) -> nn.Module:
        return self.root.vision_tower

    @property
    def projector(self) -> nn.Module:
        return self.root.multi_modal_projector

    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        pixels = inputs["pixel_values"]
        patch = self.config.vision_config.patch_size
        grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        lead = int(self.has_cls and self.config.vision_feature_select_strategy == "full")
        return [Piece(picture, 0, grid, lead) for picture in range(len(pixels))]

    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        return list(inputs["pixel_values"])

    def tower_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {"pixel_values": args[0] if args else kwargs["pixel_values"]}

    @property
    def features_module(self) -> nn.Module:
        return self.projector

    @property
    def encoder_attention(self) -> nn.Module:
        """Of the block that made the selected features; of the last of them where several layers are concatenated."""
        layer = self.config.vision_feature_layer
        layer = layer if isinstance(layer, int) else layer[-1]
        blocks = encoder_blocks(self.vision_tower)
        index = layer % (len(blocks) + 1)  # index into [embeddings, block 1, ..., block L]
        if index == 0:
            raise UnsupportedError("the model uses patch embeddings as features: no encoder block made them.")
        return attention_of(blocks[index - 1])
