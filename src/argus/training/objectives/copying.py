"""Copying: random tokens, said twice; the second time is predicted.

    x_1 .. x_n x_1 .. x_n        L = - mean over i = 1 .. n of log p(x_i | x_1 .. x_n x_1 .. x_{i-1})

Nothing but looking back helps, so the heads form that find an earlier occurrence of what was just read and tell what came after it:
induction heads (In-context Learning and Induction Heads, arXiv 2209.11895). A small language model that never met a text that
repeats itself has none, and then cannot take anything from demonstrations; some hundred steps on this give them to it.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from pydantic import Field
from torch import nn

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.training.objectives.base import Item
from argus.training.objectives.language import Language, LanguageOptions
from argus.training.rows import IGNORE, Encoded


class CopyingOptions(Options):
    """How long."""

    length: int = Field(16, ge=2, le=256, description="tokens that are said twice, all different")


class Copying(Language):
    """Next-token cross-entropy on the repetition (`processor` is a tokenizer, or has one)."""

    Options = CopyingOptions  # type: ignore[assignment]
    needs_questions = False

    def __init__(self, options: CopyingOptions) -> None:
        super().__init__(LanguageOptions())
        self.length = options.length

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, getattr(processor, "tokenizer", processor))
        self.words = np.array(sorted(set(self.processor.get_vocab().values()) - set(self.processor.all_special_ids)))
        if len(self.words) < self.length:
            raise UnsupportedError(
                f"copying {self.length} different tokens needs as many, but the tokenizer has {len(self.words)}",
                hint=f"Set length to {len(self.words)} or less.",
            )

    def encode(self, item: Item) -> Encoded:
        """Tokens drawn by a hash of the item's id, twice."""
        rng = np.random.default_rng(zlib.crc32((item if isinstance(item, Sample) else item[0]).id.encode()))
        ids: list[int] = rng.choice(self.words, self.length, replace=False).tolist()
        return Encoded([], [ids + ids], [[IGNORE] * self.length + ids], independent=False)
