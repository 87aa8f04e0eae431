"""Tiny composed models, made on the spot."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    ViTMAEConfig,
)

from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.vit import ViTConfig
from argus.model.processor import ArgusProcessor, processor_for
from argus.model.tokenizer import train_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TOWERS: dict[str, PretrainedConfig] = {
    "vit": ViTConfig(intermediate_size=48, **SMALL),
    "clip": CLIPVisionConfig(intermediate_size=48, **SMALL),
    "siglip": SiglipVisionConfig(intermediate_size=48, **SMALL),
    "dinov2": Dinov2Config(mlp_ratio=2, **SMALL),
    "mae": ViTMAEConfig(intermediate_size=48, **SMALL),
}
BODY = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LANGUAGE: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True, **BODY},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": False, **BODY},
    "gpt_neox": {"model_type": "gpt_neox", **BODY},
}
WORDS = ["red green blue star circle", "How many things are there?", "User: Assistant: yes no 1 2 3", "What colour is the star?"]


def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(WORDS, 300)


def tiny(tower: str = "vit", language: str = "llama", seed: int = 0) -> tuple[ArgusForConditionalGeneration, ArgusProcessor]:
    """A random model and its processor."""
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(seed)
    config = ArgusConfig(TOWERS[tower].to_dict(), {**LANGUAGE[language], **ids}, image_token_id=3)
    model = ArgusForConditionalGeneration(config).eval()
    # Larger weights than training starts from, so that pictures and words matter to the logits of a random model.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model, processor_for(model.model, words)


def chat(text: str, pictures: int = 1) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]}]
