"""Tiny random NVLMs in the three ways into the language model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from argus.model.compose import compose
from tests.model.several import ENCODER
from tests.model.tiny import LANGUAGE, tokenizer

CROSS = ("cross", "hybrid")
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


def words(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of the language model alone."""
    return model.lm_head(model.model.language_model(input_ids=ids, attention_mask=mask).last_hidden_state)
