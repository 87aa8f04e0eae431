"""A composed model with random weights, small enough to be made on the spot: 32 px, 16 visual tokens, two layers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.vit import ViTConfig
from argus.model.processor import processor_for
from argus.model.tokenizer import train_tokenizer, world_texts

_folders: list[TemporaryDirectory[str]] = []  # held until the process ends, then removed


@cache
def tiny_model() -> Path:
    """The folder of the model; made once per process."""
    from transformers import LlamaConfig

    torch.manual_seed(0)
    tokenizer = train_tokenizer(world_texts({"objects": {}}, 50), 400)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,  # far from uniform, so that variants differ
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = ViTConfig(
        image_size=32, patch_size=8, hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    config = ArgusConfig(vision, text, image_token_id=tokenizer.convert_tokens_to_ids("<image>"))
    model = ArgusForConditionalGeneration(config)
    _folders.append(TemporaryDirectory(prefix="tiny-vlm-"))
    folder = Path(_folders[-1].name)
    model.save_pretrained(folder)
    processor_for(model.model, tokenizer).save_pretrained(folder)
    return folder
