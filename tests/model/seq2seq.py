"""Tiny encoder-decoders with their tokenizers, and models composed of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from argus.model.compose import compose
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.processor import ArgusProcessor
from tests.model.tiny import tokenizer

SIZES = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 0}
KINDS: dict[str, dict[str, Any]] = {
    "t5": {"model_type": "t5"},  # tied head, scaled states
    "flan_t5": {"model_type": "t5", "tie_word_embeddings": False, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 1},
    "mt5": {"model_type": "mt5"},
    "umt5": {"model_type": "umt5"},
}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}


def seq2seq(kind: str = "t5") -> Any:
    """A random encoder-decoder of transformers whose weights are large enough for answers to vary."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**SIZES, **IDS, **KINDS[kind], "vocab_size": len(tokenizer()) + 5})
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    with torch.no_grad():
        if kind == "flan_t5":
            model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "shared" not in name:
                weight.mul_(3)
    return model


def saved(folder: Path, kind: str = "t5") -> str:
    """Its folder, as it would come from the Hub; like T5's, its tokenizer ends every text with `</s>`."""
    seq2seq(kind).save_pretrained(folder / kind)
    words = tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", IDS["eos_token_id"])])
    words.save_pretrained(folder / kind)
    return str(folder / kind)


def composed(folder: Path, kind: str = "t5", **parts: Any) -> tuple[ArgusForConditionalGeneration, ArgusProcessor]:
    """A model composed of it."""
    torch.manual_seed(1)
    model, processor = compose({"language_model": saved(folder, kind), "encoder": {"vit": VIT}, **parts})
    return model.eval(), processor
