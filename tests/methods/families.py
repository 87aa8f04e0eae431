"""Tiny random models of the families that the anatomy knows, and inputs as their processors make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SiglipVisionConfig,
)

from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.vit import ViTConfig
from tests.methods.anyres import alternating, internvl, internvl_inputs, llava_next, onevision, onevision_inputs
from tests.methods.tiny import END, IMAGE, LAYERS, PAD, SHOWN, VIDEO, llama, made, padded


def llava(attention: str = "sdpa", encoder: str = "clip", side: int = 24, heads: int = 4) -> PreTrainedModel:
    """LLaVA with 6 x 6 visual tokens per picture and grouped queries."""
    vision = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}[encoder](
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=side, patch_size=4
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=llama(heads),
        image_token_id=IMAGE,
        vision_feature_select_strategy="default" if encoder == "clip" else "full",
    )
    return made(LlavaForConditionalGeneration, config, attention)


def argus(attention: str = "sdpa", vision: Any = None) -> PreTrainedModel:
    """A model composed by Argus, of the same sizes as `llava`."""
    vision = vision or ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=24, patch_size=4
    )
    config = ArgusConfig(vision_config=vision, text_config=llama(4), image_token_id=IMAGE)
    return made(ArgusForConditionalGeneration, config, {"text_config": attention})


def _qwen_text() -> dict[str, Any]:
    return {
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


QWEN_TOKENS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": SHOWN, "vision_end_token_id": END}


def qwen(attention: str = "sdpa") -> PreTrainedModel:
    """Qwen2.5-VL with windowed attention in all encoder blocks but the second, and mRoPE."""
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
    config = Qwen2_5_VLConfig(text_config=_qwen_text(), vision_config=vision, **QWEN_TOKENS)
    return made(Qwen2_5_VLForConditionalGeneration, config, attention)


def qwen2(attention: str = "sdpa") -> PreTrainedModel:
    """Qwen2-VL, all of whose encoder blocks see the whole picture."""
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 4, "patch_size": 4}
    config = Qwen2VLConfig(text_config=_qwen_text(), vision_config=vision, **QWEN_TOKENS)
    return made(Qwen2VLForConditionalGeneration, config, attention)


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
    inputs = padded(rows)
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
            row += [SHOWN] + [IMAGE] * (high * wide // 4) + [END, text[2 + picture]]
        rows.append(row + text[2 + count :])
    inputs = padded(rows)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    if pixels:
        inputs["pixel_values"] = torch.cat(pixels)
        inputs["image_grid_thw"] = torch.tensor(sizes)
    return inputs


@dataclass(frozen=True)
class Family:
    """How to make a tiny model of a family and its inputs.

    Args:
        model: attention kernel -> model.
        inputs: pictures and words of each item -> inputs.
        part: inputs, those of some of their pictures -> the picture inputs of those alone.
        plain: every picture is one crop, all of whose placeholders show a part of it.
    """

    model: Callable[..., PreTrainedModel]
    inputs: Callable[..., dict[str, Tensor]]
    part: Callable[[dict[str, Tensor], range], dict[str, Tensor]]
    plain: bool = True


def _rows(inputs: dict[str, Tensor], some: range) -> dict[str, Tensor]:
    """A row per picture."""
    return {k: inputs[k][some.start : some.stop] for k in ("pixel_values", "image_sizes") if k in inputs}


def _onevision_rows(inputs: dict[str, Tensor], some: range) -> dict[str, Tensor]:
    """A row per picture; whether a picture is alone in its prompt is said for its prompt."""
    per_picture = inputs["batch_num_images"].repeat_interleave(inputs["batch_num_images"])
    return {**_rows(inputs, some), "batch_num_images": per_picture[some.start : some.start + 1]}


def _patches(inputs: dict[str, Tensor], some: range) -> dict[str, Tensor]:
    """A row per patch."""
    grids = inputs["image_grid_thw"]
    pixels = inputs["pixel_values"].split(grids.prod(-1).tolist())[some.start : some.stop]
    return {"pixel_values": torch.cat(pixels), "image_grid_thw": grids[some.start : some.stop]}


def _tiles(inputs: dict[str, Tensor], some: range) -> dict[str, Tensor]:
    """A row per tile; a picture's are as many as its placeholders say."""
    shown = (inputs["input_ids"] == IMAGE).flatten().tolist()
    sizes = [len(list(run)) // 9 for image, run in groupby(shown) if image]
    pixels = inputs["pixel_values"].split(sizes)[some.start : some.stop]
    return {"pixel_values": torch.cat(pixels)}


FAMILIES: dict[str, Family] = {
    "argus": Family(argus, llava_inputs, _rows),
    "internvl": Family(internvl, internvl_inputs, _tiles, plain=False),
    "llava": Family(llava, llava_inputs, _rows),
    "llava_next": Family(llava_next, alternating, _rows, plain=False),
    "llava_onevision": Family(onevision, onevision_inputs, _onevision_rows, plain=False),
    "qwen2_5_vl": Family(qwen, qwen_inputs, _patches),
    "qwen2_vl": Family(qwen2, qwen_inputs, _patches),
}


def single(inputs: dict[str, Tensor], item: int, family: str, pictures: list[int]) -> dict[str, Tensor]:
    """One item of a batch, without its padding."""
    real = inputs["attention_mask"][item].bool()
    out = {k: inputs[k][item : item + 1, real] for k in ("input_ids", "attention_mask", "mm_token_type_ids") if k in inputs}
    first = sum(pictures[:item])
    return {**out, **FAMILIES[family].part(inputs, range(first, first + pictures[item]))}


def cast(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Inputs with pixels of a type."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
