"""A tiny LLaVA-NeXT: pictures become a small view and tiles, packed into lines that end in breaks."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration, PreTrainedModel

from tests.methods.families import IMAGE, _llama, _made, _padded

PINPOINTS = [[24, 48], [48, 24], [48, 48]]  # tiles of 24 px, 6 x 6 patches
SIZES = {(24, 48): (3, 36 + 6 * 13), (30, 48): (5, 36 + 8 * 13)}
# (height, width) of the picture -> (crops, placeholders). 24 x 48 fits 1 x 2 tiles exactly: 6 lines of 12 and a break.
# 30 x 48 takes 2 x 2 tiles; of 12 lines (12 - round(12 * 30 / 48)) // 2 = 2 above and 2 below are padding: 8 lines.


def llava_next(attention: str = "sdpa") -> PreTrainedModel:
    """LLaVA-NeXT with a CLIP encoder that has CLS."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=24, patch_size=4
    )
    config = LlavaNextConfig(vision_config=vision, text_config=_llama(4), image_token_id=IMAGE, image_grid_pinpoints=PINPOINTS)
    return _made(LlavaNextForConditionalGeneration, config, attention)


def next_inputs(pictures: list[list[tuple[int, int]]], questions: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Left-padded prompts: item i shows pictures of the sizes `pictures[i]`, each behind one word, and `questions[i]` words."""
    rows, pixels, sizes = [], [], []
    most = max(SIZES[size][0] for item in pictures for size in item)
    for number, (item, words) in enumerate(zip(pictures, questions, strict=True)):
        random = torch.Generator().manual_seed(1000 * seed + number)
        row = [1]
        for size in item:
            crops, placeholders = SIZES[size]
            tiles = torch.zeros(most, 3, 24, 24)
            tiles[:crops] = torch.randn(crops, 3, 24, 24, generator=random)
            pixels.append(tiles)
            sizes.append(size)
            row += [3, *[IMAGE] * placeholders]
        rows.append(row + torch.randint(3, 50, (words,), generator=random).tolist())
    return {**_padded(rows), "pixel_values": torch.stack(pixels), "image_sizes": torch.tensor(sizes)}
