"""Tiny random NVLMs in the three ways into the language model, pictures for them, and batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from argus.model.compose import compose
from tests.model.tiny import LANGUAGE, chat, tokenizer

ENCODER = {
    "vit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 16}
}
CROSS = ("cross", "hybrid")
ANSWER = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
AREA = 4  # visual tokens of a tile


def made(
    fusion: str, monkeypatch: pytest.MonkeyPatch, *, gate: float = 1.0, every: int = 1, language: str = "llama", **view: Any
) -> tuple[Any, Any]:
    """A random model; weights large enough for pictures to matter, gates open."""
    monkeypatch.setattr("argus.model.compose._tokenizer", lambda spec: tokenizer())
    torch.manual_seed(0)
    model, processor = compose(
        {
            "language_model": {"causal_lm": LANGUAGE[language], "tokenizer": "words"},
            "encoder": ENCODER,
            "view": {"nvlm": {"thumbnail_tag": "<tile_0>", **view}},
            "backbone": {"gated_cross_attention": {"fusion": fusion, "every": every, "gate": gate}},
        }
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval(), processor


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


# 2 tiles and a thumbnail, one tile, 3 tiles and a thumbnail
PICTURES = [picture(i, size) for i, size in enumerate([(40, 20), (16, 16), (30, 75)])]


def encode(processor: Any, texts: list[str], groups: list[list[Image.Image]]) -> Any:
    prompts = [
        processor.apply_chat_template(chat(t, len(g)), tokenize=False, add_generation_prompt=True)
        for t, g in zip(texts, groups, strict=True)
    ]
    return processor(images=[p for g in groups for p in g] or None, text=prompts, return_tensors="pt", padding=True)


def mixed(processor: Any) -> Any:
    return encode(processor, ["What colour is the star?", "How many?", "red"], [PICTURES[:1], PICTURES[1:], []])


def words(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of the language model alone."""
    return model.lm_head(model.model.language_model(input_ids=ids, attention_mask=mask).last_hidden_state)
