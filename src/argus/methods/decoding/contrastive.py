"""Contrastive decoding: the next token from two branches, one of which sees less of the picture.

    z_cd = (1 + alpha) z - alpha z'        z: the model's logits, z': those of the negative branch
    z_cd = -inf  where  z < log(beta) + max(z), that is where p < beta max p

What the negative branch finds likely too does not come from the picture and is subtracted. This is the form of VCD (arXiv
2311.16922), M3ID and DAMRO (arXiv 2410.04514); they differ in what the negative branch is shown: `negative`.

The branch is prefilled once, has a KV cache of its own and is fed with the tokens that the model writes; under beam search its
rows follow the beams. `ContrastiveProcessor` is a `LogitsProcessor` that owns the branch. It belongs in front of all others, as
the equation is about raw logits: penalties, temperature and top-p then act on z_cd. The published code of DAMRO bypasses them.

Shapes: z, z', z_cd (B, V). alpha = 0 leaves z as it is but for the cutoff, beta = 0 rules nothing out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import LogitsProcessor

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.methods.decoding.prompt import Prompt
from argus.methods.encoded import Kind
from argus.model.anatomy.base import Anatomy


class ContrastiveOptions(Options):
    """Options that every contrastive method has."""

    alpha: float = Field(1.0, ge=0, le=100, description="weight of the contrast; 0 for none")
    beta: float = Field(0.1, ge=0, le=1, description="tokens below this share of the likeliest one's probability are ruled out")


def combine(logits: Tensor, negative: Tensor, alpha: float, beta: float) -> Tensor:
    """z_cd (..., V) in float32 from z and z' (..., V)."""
    logits = logits.float()
    contrasted = (1 + alpha) * logits - alpha * negative.float()
    if not beta:
        return contrasted
    ruled_out = logits < math.log(beta) + logits.amax(-1, keepdim=True)
    return contrasted.masked_fill(ruled_out, float("-inf"))


class Contrastive(ABC):
    """A contrastive method: what the negative branch is shown.

    Attributes:
        kinds: attention in the vision encoder that it reads.
        fingerprinted: whether it reads fingerprints of the pixels.
        patchwise: whether it chooses patches in front of the connector, instead of visual tokens.
    """

    Options: ClassVar[type[ContrastiveOptions]] = ContrastiveOptions
    kinds: tuple[Kind, ...] = ()
    fingerprinted: bool = False
    patchwise: bool = False

    def __init__(self, options: ContrastiveOptions) -> None:
        self.options = options

    def check(self, anatomy: Anatomy) -> None:  # noqa: B027 - most methods work on every model
        """Adapts to a model; raises UnsupportedError, with the reason, if it cannot work there."""

    @abstractmethod
    def negative(self, prompt: Prompt) -> Prompt:
        """The prompt of the negative branch."""


class Branch:
    """A prompt that the same language model reads beside the main one, with a cache of its own.

    Attributes:
        logits: (B, V) behind the last token it was given.
    """

    def __init__(self, anatomy: Anatomy, prompt: Prompt) -> None:
        self.anatomy, self.real, self.map = anatomy, prompt.real, prompt.map
        self.cache: Any = None
        positions = prompt.positions
        if positions is None:
            positions = (prompt.real.cumsum(1) - 1).clamp(min=0)  # (B, L)
        self.next = positions.amax(-1).reshape(-1, len(prompt.real)).amax(0) + 1  # (B,)
        self.logits = self._run(positions, prompt.embeddings, last=True)[:, -1]

    def extend(self, tokens: Tensor) -> Tensor:
        """Feeds tokens (B, T); gives the logits (B, T, V) behind each of them."""
        length = tokens.shape[1]
        positions = self.next[:, None] + torch.arange(length, device=tokens.device)  # (B, T)
        self.next = self.next + length
        self.real = torch.cat([self.real, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        if self.map is not None:
            self.map = self.map.extend(length)
        if self.anatomy.mrope:
            positions = positions.expand(3, -1, -1)
        logits = self._run(positions, self.anatomy.model.get_input_embeddings()(tokens), last=False)
        self.logits = logits[:, -1]
        return logits

    def select(self, rows: Tensor) -> None:
        """Goes on with these of its rows (R,): beams in a new order, or one prompt several times."""
        self.cache.reorder_cache(rows)
        self.real, self.next, self.logits = self.real[rows], self.next[rows], self.logits[rows]
        self.map = None if self.map is None else self.map.select(rows)

    def _run(self, positions: Tensor, embeddings: Tensor, last: bool) -> Tensor:
        with self._own_map():
            output = self.anatomy.language_model(
                inputs_embeds=embeddings,
                attention_mask=self.real.long(),
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache = output.past_key_values
        hidden = output.last_hidden_state
        return self.anatomy.model.get_output_embeddings()(hidden[:, -1:] if last else hidden)

    @contextmanager
    def _own_map(self) -> Iterator[None]:
        """The branch's token map in the place of the model's, while the branch runs."""
        if self.map is None:
            yield
            return
        root: Any = self.anatomy.root
        main, root.token_map = root.token_map, self.map
        try:
            yield
        finally:
            root.token_map = main


class ContrastiveProcessor(LogitsProcessor):
    """Contrasts the scores of one call of `generate`; a new one is needed for each.

    Args:
        begin: (length of the prompt) -> the negative branch of the prompt that was just prefilled; None where it shows no
            picture, so that there is nothing to contrast and scores stay as they are.
        alpha, beta: of the equation.
        beams: rows per item that change places (num_beams). Scores are then log-probabilities of different rows that are
            compared, so z_cd is normalised.
    """

    def __init__(self, begin: Callable[[int], Branch | None], alpha: float, beta: float, beams: int = 1) -> None:
        self.begin, self.alpha, self.beta, self.beams = begin, alpha, beta, beams
        self.branch: Branch | None = None
        self.ids: Tensor | None = None  # (R, S) what the branch has read, the prompt included

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.ids is None:
            self.branch = self.begin(input_ids.shape[1])
            if self.branch is not None and len(self.branch.real) != len(input_ids):
                raise UnsupportedError(f"the prompt has {len(self.branch.real)} rows, and {len(input_ids)} are decoded.")
        elif self.branch is not None:
            self._follow(self.branch, self.ids, input_ids)
        self.ids = input_ids
        if self.branch is None:
            return scores
        contrasted = combine(scores, self.branch.logits, self.alpha, self.beta)
        return contrasted.log_softmax(-1) if self.beams > 1 else contrasted

    def _follow(self, branch: Branch, before: Tensor, now: Tensor) -> None:
        """Feeds the newest tokens; under beam search, first finds the row that each one continues."""
        if now.shape != (len(before), before.shape[1] + 1):
            raise UnsupportedError(
                "contrastive decoding takes one new token per step and row.",
                hint="Decode without an assistant model or prompt lookup.",
            )
        if self.beams > 1:
            item = torch.arange(len(now), device=now.device) // self.beams
            same = (before[None] == now[:, None, :-1]).all(-1) & (item[None] == item[:, None])  # (R new, R old)
            branch.select(same.int().argmax(1))
        branch.extend(now[:, -1:])
