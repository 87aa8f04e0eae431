"""A multimodal model composed of parts: view, encoder, connector, language model.

The attribute names are LLaVA's (`vision_tower`, `multi_modal_projector`, `language_model`, `lm_head`), the classes are
registered with the Auto classes, and the model is saved as safetensors: `generate`, `pipeline`, PEFT and TRL work unchanged.

    pixels (T, 3, H, W) -> encoder -> (T, N, C) -> connector -> (T, M, D) -> placeholders of the sequence (B, S, D) -> logits
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast, LlavaModelOutputWithPast

import argus.model.attention  # noqa: F401  registers "matmul"
from argus.core.errors import ModelError
from argus.core.registry import build
from argus.model.connectors.base import ConnectorContext
from argus.model.encoders.base import build_tower
from argus.model.encoders.vit import ViTConfig
from argus.model.features import VisualFeatures
from argus.model.token_map import TokenMap, token_map


class ArgusConfig(PretrainedConfig):
    """Parts of a composed model, by name.

    Args:
        vision_config: a `ViTConfig` or any vision config of transformers.
        text_config: any causal language model's config.
        connector: {name: options} of the connector.
        view: {name: options} of the view.
        vision_feature_layer: layer read from a transformers tower; a `ViTConfig` carries its own.
        image_token_id: id of the placeholder.
    """

    model_type = "argus"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        vision_config: PretrainedConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        connector: dict[str, dict[str, Any]] | None = None,
        view: dict[str, dict[str, Any]] | None = None,
        vision_feature_layer: int = -2,
        image_token_id: int = 3,
        **kwargs: Any,
    ) -> None:
        self.vision_config = _config(vision_config, "argus_vit")
        self.text_config = _config(text_config, "llama")
        self.connector = connector or {"mlp": {}}
        self.view = view or {"square": {}}
        self.vision_feature_layer = vision_feature_layer
        self.image_token_id = image_token_id
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(self.text_config, name, None))
        super().__init__(**kwargs)


def _config(given: PretrainedConfig | dict[str, Any] | None, default: str) -> PretrainedConfig:
    if isinstance(given, PretrainedConfig):
        return given
    values = dict(given or {})
    return AutoConfig.for_model(values.pop("model_type", default), **values)


class ArgusPreTrainedModel(PreTrainedModel):
    """What `ArgusModel` and `ArgusForConditionalGeneration` share."""

    config_class = ArgusConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ArgusModel(ArgusPreTrainedModel):
    """Vision tower, connector and language model, without the head."""

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        self.vision_tower: Any = build_tower(config.vision_config, config.vision_feature_layer)
        name, options = next(iter(config.connector.items()))
        self.multi_modal_projector = build(
            "connector",
            name,
            options,
            vision_width=self.vision_tower.hidden_size,
            text_width=config.text_config.hidden_size,
        )
        self.language_model = AutoModel.from_config(config.text_config)
        self.token_map: TokenMap | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def encode_images(self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False) -> VisualFeatures:
        """Features of tiles (T, 3, H, W), before the connector."""
        return self.vision_tower(pixel_values, cls_attention=cls_attention, hidden_states=hidden_states)

    def get_image_features(self, pixel_values: Tensor, context: ConnectorContext | None = None, **kwargs: Any) -> Tensor:
        """Visual tokens (T, M, D) of tiles (T, 3, H, W)."""
        return self.multi_modal_projector(self.encode_images(pixel_values), context)

    def visual_grid(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Rows and columns of visual tokens per tile of this size in pixels (the trained size by default)."""
        tower = self.vision_tower
        rows = (height or tower.image_size) // tower.patch_size
        columns = (width or tower.image_size) // tower.patch_size
        return self.multi_modal_projector.tokens((rows, columns))

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        image_features: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """Run the parts.

        Args:
            input_ids: (B, S), one placeholder per visual token.
            pixel_values: (T, 3, H, W) tiles of all pictures of the batch, in reading order.
            image_features: (T, M, D) visual tokens computed before, instead of pixels.
            mm_token_type_ids: (B, S), 1 on visual tokens; the ids say the same and are what is read.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if image_features is None and pixel_values is not None:
            image_features = self.get_image_features(pixel_values)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if input_ids is not None:
            self._read_map(input_ids, attention_mask, pixel_values, image_features, past)
        if image_features is not None:
            inputs_embeds = self._place(input_ids, inputs_embeds, image_features)
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return LlavaModelOutputWithPast(
            last_hidden_state=output.last_hidden_state,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=image_features,
        )

    def _place(self, input_ids: Tensor | None, embeds: Tensor, features: Tensor) -> Tensor:
        if input_ids is None:
            raise ModelError("visual tokens need input_ids, which say where they belong")
        where = input_ids == self.config.image_token_id
        wanted, given = int(where.sum()), features.shape[0] * features.shape[1]
        if wanted != given:
            raise ModelError(
                f"the prompts hold {wanted} image tokens, but the pictures give {given} visual tokens "
                f"({features.shape[0]} tiles x {features.shape[1]})",
                hint="Prepare text and pictures in one call of the processor, and do not truncate.",
            )
        return embeds.masked_scatter(where[..., None], features.to(embeds.dtype))

    def _read_map(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixels: Tensor | None,
        features: Tensor | None,
        past: int,
    ) -> None:
        """Keep `token_map` for the whole sequence so far: built at prefill, extended at each further chunk or token."""
        grid = self.visual_grid(*pixels.shape[-2:]) if pixels is not None else self.visual_grid()
        if features is not None and features.shape[1] != grid[0] * grid[1]:
            grid = (1, features.shape[1])
        # Only a chunk that comes with pictures holds visual tokens: a model may well say the placeholder's word.
        placeholder = self.config.image_token_id if features is not None else -1
        chunk_mask = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        chunk = token_map(input_ids, placeholder, grid, attention_mask=chunk_mask)
        known = self.token_map
        if past == 0 or known is None or len(known) < past:
            self.token_map = chunk
            return
        known = known.slice(0, past)
        if known.kind.shape[0] != chunk.kind.shape[0]:
            # A prefix that was computed once and repeated for several continuations.
            repeat = chunk.kind.shape[0] // known.kind.shape[0]
            known = known.select(torch.arange(known.kind.shape[0], device=input_ids.device).repeat_interleave(repeat))
        self.token_map = TokenMap(
            *(torch.cat([getattr(known, name), getattr(chunk, name)], dim=1) for name in TokenMap.__slots__)
        )


class ArgusForConditionalGeneration(ArgusPreTrainedModel, GenerationMixin):
    """The composed model with its head; generates text from pictures and text."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        self.model = ArgusModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        # The embedding table's name depends on the language model's family.
        table = self.model.get_input_embeddings()
        path = next(name for name, module in self.model.named_modules() if module is table)
        self._tied_weights_keys = {"lm_head.weight": f"model.{path}.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def get_decoder(self) -> nn.Module:
        return self.model.language_model

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> Tensor:
        """Visual tokens (T, M, D) of tiles (T, 3, H, W)."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        image_features: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """Logits, and the next-token loss where labels are given; see `ArgusModel.forward` for the inputs."""
        count = kwargs.pop("num_items_in_batch", None)
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            mm_token_type_ids=mm_token_type_ids,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else slice(None)
        hidden = output.last_hidden_state[:, logits_to_keep if isinstance(logits_to_keep, Tensor) else keep]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, num_items_in_batch=count
            )
        return LlavaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=output.image_hidden_states,
        )


AutoConfig.register("argus", ArgusConfig, exist_ok=True)
AutoModel.register(ArgusConfig, ArgusModel, exist_ok=True)
AutoModelForImageTextToText.register(ArgusConfig, ArgusForConditionalGeneration, exist_ok=True)

__all__ = ["ArgusConfig", "ArgusForConditionalGeneration", "ArgusModel", "ViTConfig"]
