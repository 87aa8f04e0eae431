"""Encoder-decoders of transformers, read as what a model can be composed of (see `argus.model.prefix_lm`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from argus.core.errors import UnsupportedError
from argus.model.load import read_weights, reading, resolve
from argus.model.prefix_lm import KIND, PrefixLMConfig, PrefixLMForCausalLM

FAMILIES = ("mt5", "t5", "umt5")  # positions are relative, so a prompt may be padded and an answer begin anywhere


def load_seq2seq(reference: str) -> tuple[PrefixLMForCausalLM, Any] | None:
    """An encoder-decoder and its tokenizer; None where the reference is a model of another kind.

    Raises:
        UnsupportedError: an encoder-decoder of another family.
    """
    place = resolve(reference)
    with reading(reference):
        config = AutoConfig.from_pretrained(place)
    if not config.is_encoder_decoder or hasattr(config, "vision_config"):
        return None
    if config.model_type not in FAMILIES:
        raise UnsupportedError(
            f"'{config.model_type}' reads a prompt with an encoder that counts positions from the row's start, padding included.",
            hint=f"Choose a causal language model, or an encoder-decoder with relative positions: {', '.join(FAMILIES)}.",
        )
    language = read_weights(AutoModelForSeq2SeqLM, reference, place, dtype=torch.float32)
    with reading(reference, "its tokenizer"):
        return prefix_lm(language.eval()), AutoTokenizer.from_pretrained(place)


@torch.no_grad()
def prefix_lm(given: Any) -> PrefixLMForCausalLM:
    """An encoder-decoder with its head as a causal model, which takes its modules over.

    Which families scale the decoder's states is not told by their configs alone, so both ways are tried.

    Raises:
        UnsupportedError: its logits are those of neither.
    """
    config, training = given.config, given.training
    start = getattr(config, "decoder_start_token_id", None)
    start = config.pad_token_id if start is None else start
    tied = given.lm_head.weight is given.shared.weight
    with torch.device("meta"):
        made = PrefixLMForCausalLM(PrefixLMConfig(config, start_token_id=start, tie_word_embeddings=tied))
    for name in ("shared", "encoder", "decoder"):
        setattr(made.model.seq2seq, name, getattr(given, name))
    made.lm_head = given.lm_head
    prompt = torch.arange(2, 6, device=given.device)[None]
    said, row = prompt.flip(1), torch.cat([prompt, prompt.flip(1)], 1)
    expected = given.eval()(input_ids=prompt, decoder_input_ids=pad(said[:, :-1], (1, 0), value=start)).logits
    for scale in (1.0, config.hidden_size**-0.5):
        made.config.scale = scale
        found = made.eval()(row, answer=torch.arange(8, device=row.device)[None] > 3).logits[:, 3:-1]
        if torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
            return made.train(training)
    raise UnsupportedError(f"'{config.model_type}' changes its logits behind the head, which would be lost")


def encodes_prompts(given: Any) -> bool:
    """Whether a model, as a recipe names it, reads prompts with an encoder; what lies on the Hub is not looked at."""
    if isinstance(given, Mapping):
        kind = given.get("causal_lm", {}).get("model_type")
        return kind in (*FAMILIES, KIND) or ("language_model" in given and encodes_prompts(given["language_model"]))
    if not isinstance(given, str) or not (file := Path(resolve(given)) / "config.json").exists():
        return False
    config = json.loads(file.read_text())
    return config.get("model_type") in (*FAMILIES, KIND) or (config.get("text_config") or {}).get("model_type") == KIND
