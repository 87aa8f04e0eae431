"""A multimodal model composed of parts: view, encoder, connector, language model.

The attribute names are LLaVA's (`vision_tower`, `multi_modal_projector`, `language_model`, `lm_head`), the classes are
registered with the Auto classes, and the model is saved as safetensors: `generate`, `pipeline`, PEFT and TRL work unchanged.

    pixels (T, 3, H, W) -> encoder -> (T, N, C) -> connector -> (T, M, D) -> placeholders of the sequence (B, S, D) -> logits

The parts are built in `parts`, pictures become visual tokens in `visual_tokens`, the map of the sequence is kept in
`running_map`, and `base_model` runs them.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from argus.core.errors import UnsupportedError
from argus.model.base_model import ArgusModel
from argus.model.config import ArgusConfig
from argus.model.parts import ArgusPreTrainedModel
from argus.model.prefix_lm import PrefixCache


class ArgusForConditionalGeneration(ArgusPreTrainedModel, GenerationMixin):
    """The composed model with its head; generates text from pictures and text."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        self.model = ArgusModel(config)
        words = config.text_config
        self.lm_head = nn.Linear(words.hidden_size, words.vocab_size, bias=getattr(words, "lm_head_bias", False))
        # The embedding table's name depends on the language model's family.
        table = self.model.get_input_embeddings()
        path = next(name for name, module in self.model.named_modules() if module is table)
        self._tied_weights_keys = {"lm_head.weight": f"model.{path}.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def get_decoder(self) -> nn.Module:
        return self.model.language_model

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> Tensor | list[Tensor] | BaseModelOutputWithPooling:
        """Visual tokens of tiles (T, 3, H, W); see `ArgusModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def generate(
        self, inputs: Tensor | None = None, *args: Any, image_features: Tensor | list[Tensor] | None = None, **kwargs: Any
    ) -> Any:
        """As in transformers; `image_features`, computed before, take the place of `pixel_values`."""
        self.model._crossed = None
        if image_features is not None:
            self.model.note_features(image_features, kwargs.pop("image_sizes", None), kwargs.pop("visual_tokens", None))
            if self.model.fusion != "decoder":
                image_features = self.model._apart(image_features)
            kwargs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=cast(Any, image_features))}
        ids = inputs if inputs is not None else kwargs.get("input_ids")
        if self.model.arranges and ids is not None and kwargs.get("past_key_values") is None:
            self.model.prompt_counts = (ids == self.config.image_token_id).sum(1).tolist()
            self.model.prompt_ids = ids if self.model.fusion != "decoder" else None
        try:
            return super().generate(inputs, *args, **kwargs)
        finally:
            self.model.prompt_length = self.model.prompt_counts = self.model.prompt_ids = self.model._marks = None

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, inputs_embeds: Tensor | None = None, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers; what follows the first pass, in one piece or in chunks, is the model's answer."""
        prepared = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration:
            cache, ids = prepared.get("past_key_values"), prepared.get("input_ids")
            length = (prepared["inputs_embeds"] if ids is None else ids).shape[1]
            if isinstance(cache, PrefixCache):
                raise UnsupportedError("an encoder reads a prompt at once, not in chunks or behind a cache")
            self.model.prompt_length = length + (int(cache.get_seq_length()) if cache is not None else 0)
        return prepared

    @can_return_tuple
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
        image_features: Tensor | list[Tensor] | None = None,
        image_sizes: Tensor | None = None,
        visual_tokens: int | None = None,
        instruction_ids: Tensor | None = None,
        boxes: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        mm_token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """Logits, and the next-token loss where labels are given; see `ArgusModel.forward` for the inputs.

        In training the loss is computed from the rows that predict a label alone, and `logits` is None: a question and its
        picture make most of a sequence, and their logits are never read. `logits_to_keep` other than 0 asks for them.
        """
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            image_sizes=image_sizes,
            visual_tokens=visual_tokens,
            instruction_ids=instruction_ids,
            boxes=boxes,
            mm_encoder_outputs=mm_encoder_outputs,
            mm_token_type_ids=mm_token_type_ids,
            labels=labels,
            **kwargs,
        )
        hidden, logits, loss = output.last_hidden_state, None, None
        size = self.config.text_config.vocab_size
        all_rows = isinstance(logits_to_keep, int) and logits_to_keep == 0
        if labels is not None and self.training and all_rows and "shift_labels" not in kwargs:
            learned = labels[:, 1:] != -100  # (B, S - 1)
            rows = self.lm_head(hidden[:, :-1][learned.to(hidden.device)])  # (n, V)
            loss = self.loss_function(logits=rows, labels=labels, shift_labels=labels[:, 1:][learned], vocab_size=size, **kwargs)
        else:
            logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
            if labels is not None:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
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
