"""Small random models with a connector, and features to feed one alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from argus.model.compose import compose
from argus.model.features import VisualFeatures
from tests.model.tiny import BODY, tokenizer

VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32}
ENCODER: dict[str, Any] = {"vit": {**VIT, "patch_size": 4}}  # 8 x 8 patches


def composed(
    monkeypatch: pytest.MonkeyPatch, connector: Any, view: Any = "square", encoder: Any = ENCODER, **parts: Any
) -> tuple[Any, Any]:
    """A random model and its processor, with weights large enough for pictures to matter."""
    monkeypatch.setattr("argus.model.compose._tokenizer", lambda spec: tokenizer())
    torch.manual_seed(0)
    language = {"causal_lm": {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True, **BODY}}
    parts = {"encoder": encoder, "connector": connector, "view": view, **parts}
    model, processor = compose({"language_model": {**language, "tokenizer": "words"}, **parts})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval(), processor


def picture(seed: int = 0, width: int = 32, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def features(batch: int = 2, grid: tuple[int, int] = (4, 6), width: int = 16, layers: int = 4, seed: int = 0) -> VisualFeatures:
    """Random patches with a CLS token in front of the layers' states; the last but one layer has made the tokens."""
    count, draw = grid[0] * grid[1], torch.Generator().manual_seed(seed)
    states = tuple(torch.randn(batch, 1 + count, width, generator=draw) for _ in range(layers))
    return VisualFeatures(states[-2][:, 1:], grid, cls=states[-2][:, 0], hidden_states=states)
