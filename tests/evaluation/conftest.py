"""A tiny random LLaVA with a real processor: two layers, 16 visual tokens, grouped-query attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.inferencers.base import Question

TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}{{ '<user>' if m.role == 'user' else '<assistant>' }}"
    "{% for p in m.content %}{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}"
    "{{ '</s>' if m.role == 'assistant' else '' }}{% endfor %}{{ '<assistant>' if add_generation_prompt else '' }}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, so every text has its own, varied length."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<user>", "<assistant>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def processor() -> LlavaProcessor:
    tokenizer = tiny_tokenizer()
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="session")
def model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    size = len(processor.tokenizer)
    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        initializer_range=0.3,  # far from uniform, so that differences show
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=processor.image_token_id,
        vision_feature_layer=-1,
        initializer_range=0.3,
    )
    return LlavaForConditionalGeneration(config).eval()


def picture(seed: int) -> Image.Image:
    """A picture of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def question(group: int, number: int, text: str, options: tuple[str, ...], **metadata: Any) -> Question:
    """One question about picture `group`."""
    image = picture(group)
    message = Message("user", [ImagePart(image), TextPart(text)])
    details = {"family": "colour", "domain": "objects", "picture": f"p{group}", **metadata}
    sample = Sample(f"p{group}/{number}", [message], options[0] if options else None, list(options), details)
    return Question(f"p{group}", sample, [image])


QUESTIONS = (
    ("Which colour?", ("red", "green", "light blue")),
    ("How many stars are there?", ("1", "12", "123", "2")),
    ("Is there a ring", ("yes", "no")),
)


@pytest.fixture
def questions() -> list[Question]:
    """Three pictures with three questions each; the last picture has a fourth."""
    asked = [question(g, n, text, options) for g in range(3) for n, (text, options) in enumerate(QUESTIONS)]
    return [*asked, question(2, 3, "What is the largest thing here?", ("star", "a very large cross"))]


def naive_score(model: Any, processor: Any, question: Question, option: str, mean: bool = False) -> float:
    """Log-probability of an option by one full forward pass, nothing shared, cached or padded."""
    chat = question.sample.chat()
    prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    images = question.images or None
    inputs = processor(text=[prompt + option + "</s>"], images=images, return_tensors="pt")
    start = processor(text=[prompt], images=images, return_tensors="pt").input_ids.shape[1]
    with torch.no_grad():
        logp = model(**inputs).logits[0].log_softmax(-1)
    ids = inputs.input_ids[0]
    parts = [float(logp[i - 1, ids[i]]) for i in range(start, len(ids))]
    return sum(parts) / (len(parts) if mean else 1)
