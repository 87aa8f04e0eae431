"""A dual encoder: pictures and texts in one space, with linear probes on the patches.

Learning Transferable Visual Models From Natural Language Supervision (CLIP, arXiv 2103.00020): both towers are pooled,
projected and normalised; the logits are exp(t) * I T^T with a learned temperature, t clipped so that exp(t) <= 100.
Beside CLIP, each patch token of the layer that a VLM reads is asked what is there, by one linear head per attribute
(dense targets); the heads make patches as good as the CLS token and can be read as a segmentation.

Shapes: pixels (B, 3, H, W) and input_ids (B, S) -> image_embeds, text_embeds (B, E); dense logits (B, N, classes) per head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPTextConfig, PretrainedConfig, PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPTextModel

from argus.model.encoders.base import build_tower, nested_config
from argus.model.features import VisualFeatures

MAX_LOGIT_SCALE = math.log(100.0)  # CLIP, section 2.5


class DualEncoderConfig(PretrainedConfig):
    """Sizes of a `DualEncoder`.

    Args:
        vision_config: config of the vision tower; a `ViTConfig` where it names no type.
        text_config: a `CLIPTextConfig`.
        projection_dim: width E of the shared space.
        dense_classes: classes per dense head; no heads when empty.
        logit_scale_init: start of t; 2.6592 = ln(1 / 0.07), as in CLIP.
    """

    model_type = "argus_dual_encoder"
    sub_configs = {"vision_config": AutoConfig, "text_config": CLIPTextConfig}  # noqa: RUF012

    def __init__(
        self,
        vision_config: PretrainedConfig | dict[str, Any] | None = None,
        text_config: CLIPTextConfig | dict[str, Any] | None = None,
        projection_dim: int = 128,
        dense_classes: dict[str, int] | None = None,
        logit_scale_init: float = 2.6592,
        **kwargs: Any,
    ) -> None:
        self.vision_config = nested_config(vision_config, "argus_vit")
        self.text_config = text_config if isinstance(text_config, CLIPTextConfig) else CLIPTextConfig(**(text_config or {}))
        self.projection_dim = projection_dim
        self.dense_classes = dict(dense_classes or {})
        self.logit_scale_init = logit_scale_init
        super().__init__(**kwargs)


@dataclass(slots=True)
class DualEncoderOutput:
    """What one pass gives; text fields are None when no text was given.

    Args:
        image_embeds, text_embeds: (B, E), unit length.
        dense_logits: (B, N, classes) per head.
        features: the vision tower's patch features.
    """

    image_embeds: Tensor
    text_embeds: Tensor | None
    dense_logits: dict[str, Tensor]
    features: VisualFeatures


class DualEncoder(PreTrainedModel):
    """Vision tower, text tower, two projections, a temperature and the dense heads."""

    config_class = DualEncoderConfig
    main_input_name = "pixel_values"
    base_model_prefix = "dual_encoder"

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        tower: Any = build_tower(config.vision_config)
        self.vision_tower = tower
        self.text_tower = CLIPTextModel(config.text_config)
        width: int = tower.hidden_size
        self.visual_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init))
        self.dense_norm = nn.LayerNorm(width)
        self.dense_heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in config.dense_classes.items()})
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, DualEncoder):
            nn.init.constant_(module.logit_scale, self.config.logit_scale_init)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Unit-length text embeddings (B, E): the mean over a text's tokens, where CLIP takes the end token's state.

        The mean asks nothing of the tokenizer, and descriptions of scenes are lists whose order carries little.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.text_tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, S, W)
        weights = (mask / mask.sum(1, keepdim=True))[..., None].to(states.dtype)
        pooled = (states * weights).sum(1)  # (B, W)
        return nn.functional.normalize(self.text_projection(pooled), dim=-1)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> DualEncoderOutput:
        features: VisualFeatures = self.vision_tower(pixel_values, pooled=True)
        assert features.pooled is not None
        seen = self.dense_norm(features.tokens)  # (B, N, C) of the layer that a VLM reads
        return DualEncoderOutput(
            image_embeds=nn.functional.normalize(self.visual_projection(features.pooled), dim=-1),
            text_embeds=None if input_ids is None else self.encode_text(input_ids, attention_mask),
            dense_logits={name: head(seen) for name, head in self.dense_heads.items()},
            features=features,
        )

    def similarity(self, output: DualEncoderOutput) -> Tensor:
        """Logits (B images, B texts), temperature included, in float32 whatever the type of the states."""
        assert output.text_embeds is not None
        with torch.autocast(output.image_embeds.device.type, enabled=False):
            scale = self.logit_scale.float().clamp(max=MAX_LOGIT_SCALE).exp()
            return scale * output.image_embeds.float() @ output.text_embeds.float().T


AutoConfig.register("argus_dual_encoder", DualEncoderConfig, exist_ok=True)
AutoModel.register(DualEncoderConfig, DualEncoder, exist_ok=True)
