"""Copying: random tokens, some others, and the same tokens again; the second time is predicted.

    x_1 .. x_n  o_1 .. o_m  x_1 .. x_n        L = - mean over i = 2 .. n of log p(x_i | what stands before)

Nothing but looking back helps, so the heads form that find an earlier occurrence of what was just read and tell what came after
it: induction heads (In-context Learning and Induction Heads, arXiv 2209.11895). A small language model that never met a text
that repeats itself has none, and then cannot take anything from demonstrations. n and m are drawn anew for every row: were they
fixed, a head that looks a fixed number of tokens back would do, and nothing would be learned that another text could use.
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

    length: int = Field(16, ge=4, le=256, description="most tokens that are said twice, and most between; all different")


class Copying(Language):
    """Next-token cross-entropy on the repetition (`processor` is a tokenizer, or has one)."""

    Options = CopyingOptions  # type: ignore[assignment]
    needs_questions = False

    def __init__(self, options: CopyingOptions) -> None:
        super().__init__(LanguageOptions.model_validate({}))
        self.length = options.length

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, getattr(processor, "tokenizer", processor))
        self.words = np.array(sorted(set(self.processor.get_vocab().values()) - set(self.processor.all_special_ids)))
        if len(self.words) < 2 * self.length:
            raise UnsupportedError(
                f"copying {self.length} tokens needs {2 * self.length} different ones, but the tokenizer has {len(self.words)}",
                hint=f"Set length to {len(self.words) // 2} or less.",
            )

    def encode(self, item: Item) -> Encoded:
        """Tokens drawn by a hash of the item's id."""
        rng = np.random.default_rng(zlib.crc32((item if isinstance(item, Sample) else item[0]).id.encode()))
        n, m = rng.integers(2, self.length, endpoint=True), rng.integers(0, self.length, endpoint=True)
        drawn: list[int] = rng.choice(self.words, n + m, replace=False).tolist()
        return Encoded([], [drawn + drawn[:n]], [[IGNORE] * (n + m + 1) + drawn[1:n]], independent=False)
