"""Which tokens of a sequence the model wrote itself, where no KV cache tells.

Without a cache, `generate` computes the whole sequence again for every token. So a pass whose ids are those of the pass before
and one more column goes on with it, and what came since its first pass was generated; any other pass is a new prompt. Beams may
swap what they have written in between, never their prompt.

    [p p p] -> prompt of 3       [p p p a] -> 3       [p p p a b] -> 3       [q q q q] -> prompt of 4
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Written:
    """Remembers the last pass that found no filled cache."""

    def __init__(self) -> None:
        self.last: tuple[Tensor, int] | None = None  # its ids, and how many of their columns are the prompt

    def prompt(self, ids: Tensor | None, cache: Any) -> int | None:
        """How many columns of a pass are the prompt; None where nothing behind it is known to be generated."""
        if ids is None or (cache is not None and cache.get_seq_length()):
            return None
        last, self.last = self.last, (ids, ids.shape[1])
        if last is None or ids.shape != (len(last[0]), last[0].shape[1] + 1):
            return None
        before, prompt = last
        if not torch.equal(ids[:, :prompt], before[:, :prompt]):
            return None
        self.last = ids, prompt
        return prompt
