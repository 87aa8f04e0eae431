"""Encoder-decoder language models of the T5 family with the interface of a causal one.

Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (arXiv 1910.10683). As BLIP-2 (arXiv 2301.12597)
and X-Former (arXiv 2407.13851) use them: the encoder reads visual tokens and prompt in both directions, the decoder writes the
answer. A composed model sees one sequence, so the split is made here, at the first position of the answer:

    positions     0 ... P-2           P-1                 P         P+1   ...
    read by       encoder: 0 ... P-1  (all see all)       decoder: tokens of the answer, behind its start token
    state         the encoder's       decoder's at start  decoder's at answer 0, 1, ...
    predicts      nothing             answer 0            answer 1, 2, ...

so that the state at a position predicts the token at the next one, as in any causal model. The first pass of generation has no
answer yet: P is its length. Passes with a cache are the decoder's; the cache holds its keys and values and those of the prompt,
and reports the length of both. The head was trained on states of the decoder alone: logits in front of position P-1 mean nothing.

Positions are relative in this family, so a prompt may be padded at either side and an answer may begin anywhere: rows of
different prompts need no new alignment. The first T5 scales the decoder's states by d^(-1/2) in front of its tied head, FlanT5
does not: `scale` in the config.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    DynamicCache,
    EncoderDecoderCache,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple

import argus.model.attention  # noqa: F401  registers "matmul"
from argus.core.errors import UnsupportedError
from argus.model.encoders.base import nested_config

KIND = "prefix_lm"  # model type


class PrefixLMConfig(PretrainedConfig):
    """A T5's config, seen as a causal model's.

    Args:
        seq2seq: the config of the encoder-decoder.
        scale: what the decoder's states are multiplied by in front of the head.
        start_token_id: what the decoder reads first.
        tie_word_embeddings: the head is the table; the family's own configs say so of untied heads, too.
    """

    model_type = KIND
    sub_configs = {"seq2seq": AutoConfig}  # noqa: RUF012
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        seq2seq: PretrainedConfig | dict[str, Any] | None = None,
        scale: float = 1.0,
        start_token_id: int = 0,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.seq2seq = nested_config(seq2seq, "t5")
        self.scale, self.start_token_id = scale, start_token_id
        self.use_cache = True
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(self.seq2seq, name, None))
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    @property
    def hidden_size(self) -> int:
        return self.seq2seq.hidden_size

    @property
    def vocab_size(self) -> int:
        return self.seq2seq.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int) -> None:
        self.seq2seq.vocab_size = value

    @property
    def num_attention_heads(self) -> int:
        return self.seq2seq.num_attention_heads

    @property
    def num_hidden_layers(self) -> int:
        """Of the decoder, which are those that have a cache."""
        return self.seq2seq.num_decoder_layers


class PrefixCache(EncoderDecoderCache):
    """Keys and values of the answer and of the prompt, as long as both."""

    @property
    def prompt_length(self) -> int:
        return int(self.cross_attention_cache.get_seq_length())

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions of prompt and answer; the decoder's start token is none of them."""
        prompt = self.prompt_length
        return prompt and prompt + int(self.self_attention_cache.get_seq_length(layer_idx)) - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def of_decoder(self) -> EncoderDecoderCache:
        """The same keys and values with the decoder's own count, from which it takes relative positions."""
        return EncoderDecoderCache(self.self_attention_cache, self.cross_attention_cache)


class PrefixLMPreTrainedModel(PreTrainedModel):
    """What the two models share."""

    config_class = PrefixLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True


class PrefixLM(PrefixLMPreTrainedModel):
    """Encoder and decoder behind one sequence, without the head."""

    def __init__(self, config: PrefixLMConfig) -> None:
        super().__init__(config)
        self.seq2seq: Any = AutoModel.from_config(config.seq2seq)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.seq2seq.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.seq2seq.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        answer: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """States (B, S, D), aligned with the sequence.

        Args:
            attention_mask: (B, past + S), 0 on padding.
            past_key_values: what a first pass gave; None or an empty cache in a first pass.
            answer: (B, S) bool in a pass without a cache: the decoder reads from its first true position on.

        Raises:
            UnsupportedError: a mask over pairs of positions, a prompt in pieces, or several answers in a row.
        """
        if attention_mask is not None and attention_mask.ndim != 2:
            raise UnsupportedError("an encoder reads each prompt whole, so rows of several questions cannot be packed or branch")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if past_key_values is not None and past_key_values.get_seq_length():
            return self._continue(inputs_embeds, attention_mask, past_key_values)
        batch, length, _ = inputs_embeds.shape
        column = torch.arange(length, device=inputs_embeds.device)
        real = column.new_ones(batch, length, dtype=torch.bool) if attention_mask is None else attention_mask != 0
        if real.shape[1] != length:
            raise UnsupportedError("an encoder reads a prompt at once, not in pieces behind a cache that it did not fill")
        first = column.new_full((batch,), length)  # (B,) of the answer
        if learns := answer is not None and bool(answer.any()):
            first = torch.where(answer.any(1), answer.int().argmax(1), length)
            if (answer[:, 1:] & ~answer[:, :-1]).sum(1).max() > 1 or first.min() == 0:
                raise UnsupportedError(
                    "an encoder reads all that stands before an answer, so a row holds a prompt and one answer behind it.",
                    hint="Give each answer a row of its own, with the turns before it in the prompt.",
                )
        prompt, start = int(first.max()), int(first.min()) - 1
        reads = (real & (column < first[:, None]))[:, :prompt]
        begins, says = column == first[:, None] - 1, column >= first[:, None] - 1  # (B, S)
        encoded = self.seq2seq.encoder(inputs_embeds=inputs_embeds[:, :prompt], attention_mask=reads.long()).last_hidden_state
        told = torch.where(begins[..., None], self._start_embedding().to(inputs_embeds), inputs_embeds)[:, start:]  # (B, L, D)
        cache = PrefixCache(DynamicCache(), DynamicCache()) if use_cache is not False and not learns else None
        decoded = self.seq2seq.decoder(
            inputs_embeds=told,
            attention_mask=(begins | (says & real))[:, start:].long(),
            encoder_hidden_states=encoded,
            encoder_attention_mask=reads.long(),
            past_key_values=cache and cache.of_decoder(),
            use_cache=cache is not None,
        ).last_hidden_state
        behind = pad(decoded * self.config.scale, (0, 0, start, 0))  # (B, S, D)
        states = torch.where(says[..., None], behind, pad(encoded, (0, 0, 0, length - prompt)))
        return BaseModelOutputWithPast(last_hidden_state=states, past_key_values=cache)

    def _start_embedding(self) -> Tensor:
        return self.get_input_embeddings()(torch.tensor(self.config.start_token_id, device=self.device))  # (D,)

    def _continue(self, embeds: Tensor, mask: Tensor | None, cache: Any) -> BaseModelOutputWithPast:
        """The answer goes on by `embeds` (B, T, D)."""
        if not isinstance(cache, PrefixCache):
            raise UnsupportedError("the cache was filled by a causal model, and an encoder has to read the prompt")
        prompt = cache.prompt_length
        read, said = (None, None) if mask is None else (mask[:, :prompt], pad(mask[:, prompt:], (1, 0), value=1))  # start token
        decoded = self.seq2seq.decoder(
            inputs_embeds=embeds,
            attention_mask=said,
            encoder_hidden_states=embeds.new_empty(len(embeds), prompt, 0),  # its keys are cached; only its length is read
            encoder_attention_mask=read,
            past_key_values=cache.of_decoder(),
            use_cache=True,
        ).last_hidden_state
        return BaseModelOutputWithPast(last_hidden_state=decoded * self.config.scale, past_key_values=cache)


class PrefixLMForCausalLM(PrefixLMPreTrainedModel, GenerationMixin):
    """The same with its head: what a model is composed of."""

    _tied_weights_keys = {"lm_head.weight": "model.seq2seq.shared.weight"}  # noqa: RUF012

    def __init__(self, config: PrefixLMConfig) -> None:
        super().__init__(config)
        self.model = PrefixLM(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids: Tensor | None = None, logits_to_keep: int | Tensor = 0, **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits (B, S, V) and the cache; see `PrefixLM.forward`."""
        output = self.model(input_ids, **kwargs)
        logits = self.lm_head(slice_logits_to_keep(output.last_hidden_state, logits_to_keep))
        return CausalLMOutputWithPast(logits=logits, past_key_values=output.past_key_values)


AutoConfig.register(KIND, PrefixLMConfig, exist_ok=True)
AutoModel.register(PrefixLMConfig, PrefixLM, exist_ok=True)
AutoModelForCausalLM.register(PrefixLMConfig, PrefixLMForCausalLM, exist_ok=True)
