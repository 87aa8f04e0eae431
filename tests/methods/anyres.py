"""Tiny models of the families that show pictures in tiles: LLaVA-NeXT and LLaVA-OneVision, packed into lines, and InternVL."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    SiglipVisionConfig,
)

from tests.methods.tiny import END, IMAGE, SHOWN, VIDEO, llama, made, padded

PINPOINTS = [[24, 48], [48, 24], [48, 48]]  # tiles of 24 px, 6 x 6 patches
FLAT, TALL, SQUARE = (24, 48), (30, 48), (16, 16)
SIZES = {FLAT: (3, 36 + 6 * 13), TALL: (5, 36 + 8 * 13)}
# (height, width) of the picture -> (crops, placeholders). 24 x 48 fits 1 x 2 tiles exactly: 6 lines of 12 and a break.
# 30 x 48 takes 2 x 2 tiles; of 12 lines (12 - round(12 * 30 / 48)) // 2 = 2 above and 2 below are padding: 8 lines.
ONE_SIZES = {(16, 32): (3, 16 + 4 * 9), (32, 32): (5, 16 + 5 * 6)}
# Tiles of 16 px, 4 x 4 patches. 16 x 32 is 4 lines of 8 and a break; 32 x 32 would be 8 lines of 8, and as only 2 tiles are
# wanted, it is shrunk by sqrt(8 * 8 / (2 * 4 * 4)) = 1.41 to 5 lines of 5.
TILES = (3, 1)  # InternVL: two tiles and a thumbnail, or one picture in one piece


def llava_next(attention: str = "sdpa") -> PreTrainedModel:
    """LLaVA-NeXT with a CLIP encoder that has CLS."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=24, patch_size=4
    )
    config = LlavaNextConfig(vision_config=vision, text_config=llama(), image_token_id=IMAGE, image_grid_pinpoints=PINPOINTS)
    return made(LlavaNextForConditionalGeneration, config, attention)


def next_inputs(pictures: list[list[tuple[int, int]]], questions: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Left-padded prompts: item i shows pictures of the sizes `pictures[i]`, each behind one word, and `questions[i]` words."""
    rows, pixels, sizes = [], [], []
    most = max((SIZES[size][0] for item in pictures for size in item), default=0)
    for number, (item, words) in enumerate(zip(pictures, questions, strict=True)):
        random = torch.Generator().manual_seed(1000 * seed + number)
        row = [1]
        for size in item:
            crops, placeholders = SIZES[size]
            pixels.append(tiled(torch.randn(crops, 3, 24, 24, generator=random), most))
            sizes.append(size)
            row += [3, *[IMAGE] * placeholders]
        rows.append(row + torch.randint(3, 50, (words,), generator=random).tolist())
    return {**padded(rows), **({"pixel_values": torch.stack(pixels), "image_sizes": torch.tensor(sizes)} if pixels else {})}


def alternating(pictures: list[int], questions: list[int], seed: int = 0) -> dict[str, Tensor]:
    """`next_inputs` of as many pictures; sizes alternate."""
    return next_inputs([[(FLAT, TALL)[(i + p) % 2] for p in range(n)] for i, n in enumerate(pictures)], questions, seed)


def tiled(crops: Tensor, most: int) -> Tensor:
    """Crops of a picture, filled up to as many as the picture with the most has."""
    return torch.nn.functional.pad(crops, (0, 0) * 3 + (0, most - len(crops)))


def onevision(attention: str = "sdpa") -> PreTrainedModel:
    """LLaVA-OneVision with a SigLIP encoder, which has no CLS."""
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=16,
        patch_size=4,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=llama(),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[16, 32], [32, 32]],
        vision_aspect_ratio="anyres_max_2",
    )
    return made(LlavaOnevisionForConditionalGeneration, config, attention)


def onevision_inputs(pictures: list[int], questions: list[int], seed: int = 0) -> dict[str, Tensor]:
    """As the processor makes them: one picture in tiles, shrunk for items 0 and 1; several without tiles and with a break."""
    rows, pixels, sizes = [], [], []
    for number, (count, words) in enumerate(zip(pictures, questions, strict=True)):
        random = torch.Generator().manual_seed(1000 * seed + number)
        row = [1]
        for _ in range(count):
            size = list(ONE_SIZES)[(number // 2 + 1) % 2]
            crops, placeholders = ONE_SIZES[size] if count == 1 else (1, 17)
            pixels.append(tiled(torch.randn(crops, 3, 16, 16, generator=random), 5))
            sizes.append(size)
            row += [3, *[IMAGE] * placeholders]
        rows.append(row + torch.randint(3, 50, (words,), generator=random).tolist())
    inputs = padded(rows)
    if pixels:
        inputs |= {"pixel_values": torch.stack(pixels), "image_sizes": torch.tensor(sizes)}
        inputs["batch_num_images"] = torch.tensor([count for count in pictures if count])
    return inputs


def internvl(attention: str = "sdpa") -> PreTrainedModel:
    """InternVL with tiles of 24 px: 6 x 6 patches, 3 x 3 tokens."""
    vision = InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=[24, 24],
        patch_size=[4, 4],
        layer_scale_init_value=1.0,
    )
    config = InternVLConfig(
        vision_config=vision, text_config=llama(), image_token_id=IMAGE, image_seq_length=9, tie_word_embeddings=False
    )
    model = made(InternVLForConditionalGeneration, config, attention)
    with torch.no_grad():
        for name in ("cls_token", "position_embeddings"):  # zeros otherwise
            getattr(model.model.vision_tower.embeddings, name).normal_()
    return model


def internvl_inputs(pictures: list[int], questions: list[int], seed: int = 0) -> dict[str, Tensor]:
    """As the processor makes them: a picture's tiles behind one another, between its own two words; `TILES` alternate."""
    rows, pixels = [], []
    for number, (count, words) in enumerate(zip(pictures, questions, strict=True)):
        random = torch.Generator().manual_seed(1000 * seed + number)
        row = [1]
        for picture in range(count):
            tiles = TILES[(number + picture) % 2]
            pixels.append(torch.randn(tiles, 3, 24, 24, generator=random))
            row += [SHOWN, *[IMAGE] * 9 * tiles, END]
        rows.append(row + torch.randint(3, 50, (words,), generator=random).tolist())
    return {**padded(rows), **({"pixel_values": torch.cat(pixels)} if pixels else {})}
