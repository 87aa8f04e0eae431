"""A composed model without its head: visual tokens take their places in the sequence, which the language model reads."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers.models.llava.modeling_llava import LlavaModelOutputWithPast
from transformers.utils.generic import can_return_tuple

from argus.core.errors import ModelError
from argus.model.backbones.base import Backbone, Pass
from argus.model.config import ArgusConfig
from argus.model.prefix_lm import PrefixLM
from argus.model.running_map import RunningMap
from argus.model.token_map import ANSWER, TokenMap


class ArgusModel(RunningMap):
    """Vision tower, connector and language model, without the head."""

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        image_features: Tensor | list[Tensor] | None = None,
        image_sizes: Tensor | None = None,
        visual_tokens: int | None = None,
        instruction_ids: Tensor | None = None,
        boxes: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        mm_token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """Run the parts.

        Args:
            input_ids: (B, S), one placeholder per visual token.
            pixel_values: (T, 3, H, W) tiles of all pictures of the batch, in reading order.
            image_features: what `get_image_features` gave before, instead of pixels.
            image_sizes: (P, 2) height and width of the pictures in pixels; views of several tiles need them.
            visual_tokens: how many visual tokens a tile becomes, where the connector can choose; the prompts hold as many.
            instruction_ids, boxes: what connectors may want to know of each tile, see `get_image_features`.
            mm_encoder_outputs: the same as `{"image": output}` with them in `pooler_output`; made by `generate`.
            mm_token_type_ids: (B, S), 1 on visual tokens; read where there are no input_ids.
            labels: (B, S), -100 where nothing is learned; the rest is marked as answer in the token map.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        encoded = (mm_encoder_outputs or {}).get("image")
        if sum(x is not None for x in (pixel_values, image_features, encoded)) > 1:
            raise ValueError("give only one of pixel_values, image_features and mm_encoder_outputs")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            image_features = cast(
                Any,
                self.get_image_features(pixel_values, image_sizes, visual_tokens, instruction_ids=instruction_ids, boxes=boxes),
            )
        elif image_features is not None:
            self.note_features(image_features, image_sizes, visual_tokens)
        elif encoded is not None:
            image_features = encoded.pooler_output
        if self.fusion != "decoder" and image_features is not None and encoded is None:
            image_features = self._apart(image_features)
        crossed = self._crossed if image_features is not None or self.prompt_ids is not None else None
        past = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
        visual = self._placeholders(input_ids, inputs_embeds, mm_token_type_ids)  # (B, S)
        if image_features is not None:
            inputs_embeds = _place(visual, inputs_embeds, image_features)
        elif past:
            visual = torch.zeros_like(visual)  # in a continuation without pictures it is only the model saying the word
        elif visual.any():
            raise _mismatch(int(visual.sum()), 0, "no picture was given")
        self._crossed = None
        self._read_map(visual, input_ids, attention_mask, labels, past, crossed)
        start, shown = self._marks[:2] if self._marks is not None else (0, None)
        run = Pass(cast(TokenMap, self.token_map), past, attention_mask, past_key_values, crossed, shown, start)
        changes: list[Backbone] = [getattr(self, part) for part in self._backbones]
        given = {name: value for change in changes for name, value in change.begin(run).items()}
        if isinstance(self.language_model, PrefixLM) and not past:
            given["answer"] = run.known.role == ANSWER  # (B, S)
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
            **given,
        )
        for change in changes:
            change.end(given, output.past_key_values)
        if self.prompt_ids is None:
            self._marks = None
        return LlavaModelOutputWithPast(
            last_hidden_state=output.last_hidden_state,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=image_features,
        )


def _place(visual: Tensor, embeds: Tensor, features: Tensor | list[Tensor]) -> Tensor:
    """Embeddings (B, S, D) with the visual tokens of a stack (T, M, D), or of a list of (M, D), in their places (B, S)."""
    rows = torch.cat([one.reshape(-1, one.shape[-1]) for one in features]).to(embeds)  # (n, D)
    wanted = int(visual.sum())
    if wanted != len(rows):
        raise _mismatch(wanted, len(rows), f"{len(features)} tiles x {len(rows) // max(len(features), 1)}")
    return embeds.masked_scatter(visual[..., None], rows)


def _mismatch(wanted: int, given: int, how: str) -> ModelError:
    return ModelError(
        f"the prompts hold {wanted} image tokens, but the pictures give {given} visual tokens ({how})",
        hint="Prepare text and pictures in one call of the processor, and do not truncate.",
    )
