"""Pictures of different sizes, prompts that show several of them, and a batch that must equal its rows asked alone."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from tests.model.test_composed import picture
from tests.model.tiny import chat

ENCODER = {
    "vit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 16}
}
ANSWER = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
SIZES = [(40, 20), (16, 16), (30, 75)]
PICTURES = [picture(i, size) for i, size in enumerate(SIZES)]


def encode(processor: Any, texts: list[str], groups: list[list[Image.Image]]) -> Any:
    prompts = [
        processor.apply_chat_template(chat(t, len(g)), tokenize=False, add_generation_prompt=True)
        for t, g in zip(texts, groups, strict=True)
    ]
    return processor(images=[p for g in groups for p in g] or None, text=prompts, return_tensors="pt", padding=True)


def mixed(processor: Any) -> Any:
    return encode(processor, ["What colour is the star?", "How many?", "red"], [PICTURES[:1], PICTURES[1:], []])


def assert_each_alone(model: Any, processor: Any, texts: list[str], groups: list[list[Image.Image]]) -> None:
    """Logits and answers of a batch are those of its prompts one by one."""
    inputs = encode(processor, texts, groups)
    together = model.generate(**inputs, **ANSWER)[:, inputs["input_ids"].shape[1] :]
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
        for index in range(len(texts)):
            one = encode(processor, texts[index : index + 1], groups[index : index + 1])
            torch.testing.assert_close(model(**one).logits[0, -1], logits[index], rtol=1e-3, atol=1e-3)
            assert torch.equal(model.generate(**one, **ANSWER)[0, one["input_ids"].shape[1] :], together[index])
