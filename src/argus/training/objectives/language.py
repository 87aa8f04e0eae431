"""Causal language modelling on texts: the scene in words, then questions and answers about it.

    L = - mean over predicted tokens t of log p(x_t | x_<t)

A language model that has read many described scenes knows what is asked, what may be answered, and how to look things up,
count and compare, before it sees the first picture. All questions of a scene share its description as a prefix (see
`argus.training.rows`), each seeing the description and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.training.objectives.base import Batch, Item, Objective
from argus.training.rows import IGNORE, Encoded, assemble, bias, supervised, visible


class LanguageOptions(Options):
    """What is predicted."""

    answers_only: bool = Field(False, description="learn answers alone, not descriptions and questions")
    packing: int = Field(0, ge=0, description="tokens per packed row; 0 pads instead")
    max_length: int = Field(2048, ge=16, description="a longer text is cut here")


class Language(Objective):
    """Next-token cross-entropy for a causal LM (`processor` is its tokenizer)."""

    Options = LanguageOptions
    options: LanguageOptions

    def compile(self, model: nn.Module) -> None:
        model.get_decoder().compile()  # type: ignore[operator]

    def encode(self, item: Item) -> Encoded:
        """One item as token ids: description, then turns."""
        tokenizer = self.processor
        if isinstance(item, Sample):
            text = "\n".join(message.text() for message in item.messages)
            ids = tokenizer(text, truncation=True, max_length=self.options.max_length).input_ids
            return Encoded([], [ids], [list(ids)], independent=False)
        drawing, domain = item
        prefix = [
            tokenizer.bos_token_id,
            *tokenizer("User: " + domain.describe(drawing.scene), add_special_tokens=False).input_ids,
        ]
        questions = [f"\n{q.text}\nAssistant:" for q in drawing.questions]
        answers = [f" {q.answer}{tokenizer.eos_token}" for q in drawing.questions]
        asked = tokenizer(questions, add_special_tokens=False).input_ids
        told = tokenizer(answers, add_special_tokens=False).input_ids
        learn = not self.options.answers_only
        return Encoded(
            prefix=prefix,
            turns=[q + a for q, a in zip(asked, told, strict=True)],
            labels=[(q if learn else [IGNORE] * len(q)) + a for q, a in zip(asked, told, strict=True)],
            prefix_labels=list(prefix) if learn else None,
        )

    def collate(self, items: Sequence[Item]) -> Batch:
        return assemble([self.encode(item) for item in items], self.processor.pad_token_id, self.options.packing)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        ids, sample, turn = batch["input_ids"], batch["sample"], batch["turn"]
        dtype = torch.get_autocast_dtype(ids.device.type) if torch.is_autocast_enabled(ids.device.type) else model.dtype
        hidden = model.get_decoder()(
            input_ids=ids,
            attention_mask=bias(visible(sample, turn), dtype),
            position_ids=batch["position_ids"],
            use_cache=False,
        ).last_hidden_state  # (B, S, D)
        rows, columns, labels = supervised(batch["labels"], sample, turn)
        logits = model.get_output_embeddings()(hidden[rows, columns]).float()  # (n, V)
        loss = F.cross_entropy(logits, labels)
        return loss, {"token_accuracy": (logits.argmax(-1) == labels).float().mean()}
