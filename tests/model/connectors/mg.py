"""Tiny random MG-LLaVAs, pictures with boxes for them, batches, and a drawing of the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from argus.core.registry import build
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.fastvit_hd import FastViTHDConfig
from argus.model.encoders.low_high import LowHighConfig
from argus.model.processor import ArgusProcessor, processor_for
from tests.model.tiny import LANGUAGE, TOWERS, chat, tokenizer

FINE = FastViTHDConfig(depths=(1, 1), widths=(16, 32), attention_stages=1, image_size=64)  # maps 16 x 16 and 8 x 8
BOXES = [[(0.1, 0.2, 0.5, 0.6), (0.0, 0.0, 1.0, 1.0), (0.55, 0.1, 0.9, 0.3)], [(0.25, 0.25, 0.75, 0.5)]]


def mg(boxes: dict[str, Any] | None = None, encoder: Any = None, **options: Any) -> tuple[Any, ArgusProcessor]:
    """A random model, a ViT at 32 px beside a FastViT at 64 px, and its processor."""
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    tower = encoder or LowHighConfig([TOWERS["vit"], FINE])
    config = ArgusConfig(tower, {**LANGUAGE["llama"], **ids}, connector={"mg_llava": {"bins": 4, **options}}, image_token_id=3)
    model = ArgusForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model, processor_for(model.model, words, boxes)


def trained(**options: Any) -> tuple[Any, ArgusProcessor]:
    """As if it had learned: nothing is zero."""
    model, processor = mg(**options)
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model, processor


def picture(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def inputs(processor: Any, boxes: Any, *questions: str) -> Any:
    asked = questions or ("What colour is the star?",) * len(boxes)
    texts = [processor.apply_chat_template(chat(q), tokenize=False, add_generation_prompt=True) for q in asked]
    return processor([picture(n) for n in range(len(boxes))], texts, boxes=boxes, padding=True, return_tensors="pt")


def drawing() -> Any:
    return build("domain", "objects").draw("train", 3, 64, 4)
