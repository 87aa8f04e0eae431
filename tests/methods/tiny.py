"""What the tiny models of all families share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

IMAGE, VIDEO, PAD, LAYERS = 60, 61, 0, 3
SHOWN, END = 58, 59  # in front of a picture and behind it, where a family has such tokens


def llama(heads: int = 4) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=PAD,
        eos_token_id=2,
    )


def made(cls: Any, config: Any, attention: str | dict[str, str]) -> PreTrainedModel:
    torch.manual_seed(0)
    model = cls._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than usual, so that attention is far from uniform
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def padded(rows: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
