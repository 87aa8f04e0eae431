"""Ovis: a patch is a distribution over a visual vocabulary, and its token the expected row of a visual embedding table.

Ovis: Structural Embedding Alignment for Multimodal Large Language Model (arXiv 2405.20797). Words index a table of embeddings;
a patch cannot, so it indexes one softly: a head gives it probabilities over K visual words, which weigh the table's rows.

    p = softmax(LN(W z)) over the first K - I words, 0 on the I indicators          e = sum_k p_k E_k

Shapes: z (B, N, C) -> windows (B, M, s s C) -> p (B, M, K - I) -> e (B, M, D); with `framed` one indicator before and one behind
a tile, (B, 1 + M + 1, D). The indicators are the table's last rows. A grid that windows of side s do not fill is padded with
zeros at the right and at the bottom.

K, I and s are those of the paper's scripts (the code's default K is 8192); the table starts from N(0, 1) as torch's does. The
probabilities are computed in float32, as the authors' later models do, and `chunk` tokens at a time, recomputed in the backward
pass: what is held in memory does not grow with all B N K of them. Two differences: the published `st_argmax` hands its gradient
to the logits as they are, here it is the softmax's, as in transformers; and outside training `gumbel_argmax` draws no noise.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures


class OvisOptions(Options):
    """The vocabulary and how a patch chooses from it."""

    vocabulary: int = Field(131072, ge=4, description="K, rows of the table; the indicators are the last of them")
    indicators: int = Field(2, ge=0, description="I, rows that no patch can choose")
    framed: bool = Field(True, description="rows K - 2 and K - 1 stand around every tile")
    stride: int = Field(1, ge=1, description="s, side in patches of the window that becomes one token")
    tokenize: Literal["softmax", "gumbel_argmax", "st_argmax"] = Field(
        "softmax", description="expected row; or one row, drawn or the likeliest, with the softmax's gradient"
    )
    temperature: float = Field(1.0, gt=0, description="of gumbel_argmax; the paper anneals it from 5 to 0.05")
    chunk: int = Field(4096, ge=1, description="tokens whose probabilities are held at once")
    table_std: float = Field(1.0, gt=0, description="deviation from which the table is drawn")

    @model_validator(mode="after")
    def _rows(self) -> OvisOptions:
        if self.indicators < 2 * self.framed or self.indicators >= self.vocabulary:
            raise ValueError(f"a vocabulary of {self.vocabulary} with {self.indicators} indicators; a frame needs two of them")
        return self


class Ovis(Connector):
    """Head, probabilities and table."""

    Options = OvisOptions
    options: OvisOptions

    def __init__(self, options: OvisOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        words = options.vocabulary - options.indicators
        self.mixes_tokens, self.spatial = options.stride > 1 or options.framed, not options.framed
        self.head = nn.Linear(options.stride**2 * vision_width, words, bias=False)
        self.norm = nn.LayerNorm(words)
        self.table = nn.Embedding(options.vocabulary, text_width)
        nn.init.normal_(self.table.weight, std=options.table_std)
        self.entropy: Tensor | None = None  # of the last pass in training, as a share of log(K - I)

    def entries(self) -> tuple[nn.Module, ...]:
        return (self.head,)

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        rows, columns = (-(-side // self.options.stride) for side in grid)
        return (1, rows * columns + 2) if self.options.framed else (rows, columns)

    def windows(self, features: VisualFeatures) -> Tensor:
        """Patches of a window side by side on the channels: (B, N, C) -> (B, M, s s C)."""
        side, (rows, columns) = self.options.stride, features.grid
        if side == 1:
            return features.tokens
        x = features.tokens.unflatten(1, (rows, columns))  # (B, rows, columns, C)
        x = F.pad(x, (0, 0, 0, -columns % side, 0, -rows % side))
        x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # (B, h, s, w, s, C)
        return x.transpose(2, 3).flatten(3).flatten(1, 2)

    def probabilities(self, z: Tensor) -> Tensor:
        """Weights of the words for windows z (..., s s C): (..., K - I), rows of sum 1."""
        logits = self.norm(self.head(z)).float()
        if self.options.tokenize == "softmax":
            return logits.softmax(-1)
        if self.options.tokenize == "gumbel_argmax" and self.training:
            return F.gumbel_softmax(logits, self.options.temperature, hard=True)
        soft = logits.softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
        return hard - soft.detach() + soft

    def embed(self, visual: Tensor) -> Tensor:
        """Embeddings of visual words: integers (...) look rows up, weights (..., up to K) mix them."""
        if not visual.is_floating_point():
            return self.table(visual)
        return visual.to(self.table.weight.dtype) @ self.table.weight[: visual.shape[-1]]

    def _chunk(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Windows (n, s s C) -> tokens (n, D) and the entropy of each one's weights (n,)."""
        p = self.probabilities(z)
        return self.embed(p), torch.special.entr(p.detach()).sum(-1)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        z = self.windows(features)  # (B, M, s s C)
        parts = z.flatten(0, 1).split(self.options.chunk)
        if len(parts) > 1 and torch.is_grad_enabled():
            made = [checkpoint(self._chunk, part, use_reentrant=False) for part in parts]
        else:
            made = [self._chunk(part) for part in parts]
        tokens = torch.cat([t for t, _ in made]).unflatten(0, z.shape[:2])  # (B, M, D)
        if self.training:
            self.entropy = torch.cat([h for _, h in made]).mean() / torch.tensor(float(self.norm.normalized_shape[0])).log()
        if not self.options.framed:
            return tokens
        begin, end = self.table.weight[-2:, None].to(tokens.dtype).expand(2, len(z), -1)  # (B, D) each
        return torch.cat([begin[:, None], tokens, end[:, None]], 1)

    def statistics(self) -> dict[str, Tensor]:
        return {} if self.entropy is None else {"entropy": self.entropy}
