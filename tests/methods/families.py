"""Tiny random models of the families that the anatomy knows, and inputs as their processors make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    SiglipVisionConfig,
)

from argus.model.composed import ArgusConfig, ArgusForConditionalGeneration
from argus.model.encoders.vit import ViTConfig

IMAGE, PAD, LAYERS = 60, 0, 3


def _llama(heads: int) -> LlamaConfig:
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


def llava(attention: str = "sdpa", encoder: str = "clip", side: int = 24, heads: int = 4) -> PreTrainedModel:
    """LLaVA with 6 x 6 visual tokens per picture and grouped queries."""
    vision = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}[encoder](
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=side, patch_size=4
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_llama(heads),
        image_token_id=IMAGE,
        vision_feature_select_strategy="default" if encoder == "clip" else "full",
    )
    return _made(LlavaForConditionalGeneration, config, attention)


def argus(attention: str = "sdpa", vision: Any = None) -> PreTrainedModel:
    """A model composed by Argus, of the same sizes as `llava`."""
    vision = vision or ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=24, patch_size=4
    )
    config = ArgusConfig(vision_config=vision, text_config=_llama(4), image_token_id=IMAGE)
    return _made(ArgusForConditionalGeneration, config, {"text_config": attention})


def qwen(attention: str = "sdpa") -> PreTrainedModel:
    """Qwen2.5-VL with windowed attention in all encoder blocks but the second, and mRoPE."""
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": PAD,
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "out_hidden_size": 32,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "spatial_merge_size": 2,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=61,
        vision_start_token_id=58,
        vision_end_token_id=59,
    )
    return _made(Qwen2_5_VLForConditionalGeneration, config, attention)


def _made(cls: Any, config: Any, attention: str | dict[str, str]) -> PreTrainedModel:
    torch.manual_seed(0)
    model = cls._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than usual, so that attention is far from uniform
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def llava_inputs(pictures: list[int], questions: list[int], seed: int = 0, side: int = 24) -> dict[str, Tensor]:
    """Left-padded prompts: item i has `pictures[i]` pictures and `questions[i]` words behind them.

    What an item holds depends on the seed and on i alone, not on the other items.
    """
    size = (side // 4) ** 2
    rows, pixels = [], []
    for item, (count, words) in enumerate(zip(pictures, questions, strict=True)):
        random = torch.Generator().manual_seed(1000 * seed + item)
        pixels += list(torch.randn(count, 3, side, side, generator=random))
        text = torch.randint(3, 50, (words + 2 + count,), generator=random).tolist()
        row = text[:2]
        for picture in range(count):
            row += [IMAGE] * size + [text[2 + picture]]
        rows.append(row + text[2 + count :])
    inputs = _padded(rows)
    if pixels:
        inputs["pixel_values"] = torch.stack(pixels)
    return inputs


def qwen_inputs(
    pictures: list[int], questions: list[int], seed: int = 0, grids: tuple[tuple[int, int], ...] = ((8, 12), (4, 8))
) -> dict[str, Tensor]:
    """As `llava_inputs`; pictures alternate between sizes, in patches."""
    rows, pixels, sizes = [], [], []
    for item, (count, words) in enumerate(zip(pictures, questions, strict=True)):
        random = torch.Generator().manual_seed(1000 * seed + item)
        text = torch.randint(3, 50, (words + 2 + count,), generator=random).tolist()
        row = text[:2]
        for picture in range(count):
            high, wide = grids[(item + picture) % len(grids)]
            pixels.append(torch.randn(high * wide, 3 * 2 * 16, generator=random))
            sizes.append([1, high, wide])
            row += [58] + [IMAGE] * (high * wide // 4) + [59, text[2 + picture]]
        rows.append(row + text[2 + count :])
    inputs = _padded(rows)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    if pixels:
        inputs["pixel_values"] = torch.cat(pixels)
        inputs["image_grid_thw"] = torch.tensor(sizes)
    return inputs


def _padded(rows: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


@dataclass(frozen=True)
class Family:
    """How to make a tiny model of a family and its inputs."""

    model: Callable[..., PreTrainedModel]
    inputs: Callable[..., dict[str, Tensor]]


FAMILIES: dict[str, Family] = {
    "argus": Family(argus, llava_inputs),
    "llava": Family(llava, llava_inputs),
    "qwen2_5_vl": Family(qwen, qwen_inputs),
}


def cast(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs with pixels of a type."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
