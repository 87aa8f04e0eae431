"""A byte-pair tokenizer trained on the world's own words, for models that are trained from nothing.

Byte-level BPE (GPT-2's, as in `tokenizers`) with every digit a token of its own, so that numbers are read and written digit by
digit, and four special tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedTokenizerFast

from argus.core.registry import build
from argus.world.domain import Domain

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train on `texts`.

    Args:
        texts: whatever the model will read.
        vocabulary: number of tokens, special tokens and the 256 bytes included.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        clean_up_tokenization_spaces=False,
    )


def world_texts(domains: Mapping[str, Mapping[str, Any]], scenes: int, questions: int = 8) -> Iterator[str]:
    """Descriptions, questions, options and answers of the first training scenes of each domain.

    Args:
        domains: domain name -> options.
        scenes: scenes per domain.
    """
    for name, options in domains.items():
        domain: Domain = build("domain", name, dict(options))
        for index in range(scenes):
            scene = domain.scene(domain.rng("train", index))
            yield f"User: {domain.describe(scene)}"
            for question in domain.questions(scene, domain.rng("train", index, 1), questions):
                yield f"{question.text}\nAssistant: {question.answer}"
                yield from (f" {option}" for option in question.options)
