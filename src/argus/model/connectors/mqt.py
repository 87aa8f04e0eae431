"""Matryoshka Query Transformer for Large Vision-Language Models (arXiv 2405.19315): a resampler whose queries are ordered.

M learned queries look at the patches once. Where m < M visual tokens are asked for, the first m queries are used; trained with m
drawn anew at each step, one model serves every m. Queries do not see each other, so what m of them give is the beginning of what
all of them give.

    q = LN(Q[:m] + P[:m]),  k = LN(P'),  v = LN(x)        x (B, N, C), Q and P (M, C), P' (N, C)
    y = MHA(q, k, v) W                                    (B, m, C) -> (B, m, D)

P is the 2-D sine-cosine table of a square of M cells: the first half of the channels tells the column, the second the row, each
as [sin, cos] of place * 10000^(-d / (C / 4)); P' is P resized to the patches' grid, bicubic. Where M is no square number, P is
that of the next larger square, and the queries have its first M cells.

Constants are the published code's: M = 256, 16 heads at C = 1024 (one per 64 channels), LN eps 1e-6, Q normal with deviation 0.02
and cut at 2, W normal with D^-0.5, no bias, no norm behind. Paper and code differ in the keys. In the code they are positions
alone, so that a query pools the same places of every picture; its numbers are the published ones, and it is followed. The paper
describes keys that see the picture: `feature+position` has k = LN(x) + P', which is the resampler of Qwen-VL (arXiv 2308.12966).

m is drawn in training by the objective, `sft: {visual_tokens: even}`: uniform over 2, 4, ..., M, one m per forward pass. The
paper's first stage trains with all of them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures

HEAD_WIDTH = 64  # channels per attention head: 16 heads at 1024


class MQTOptions(Options):
    """How many queries, and what they compare themselves with."""

    max_tokens: int = Field(256, ge=1, le=4096, description="queries M, the most visual tokens per tile")
    key_source: Literal["position", "feature+position"] = Field(
        "position", description="keys are places alone, as in the published code, or patches and places, as in a resampler"
    )
    heads: int | None = Field(None, ge=1, description="attention heads; one per 64 channels when not given, 16 in the paper")


class MQT(Connector):
    """The first m of M queries over the patches."""

    Options = MQTOptions
    options: MQTOptions
    mixes_tokens = True
    resamples = True
    spatial = False
    pos_embed: Tensor

    def __init__(self, options: MQTOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        heads = options.heads or max(1, vision_width // HEAD_WIDTH)
        if vision_width % 4 or vision_width % heads:
            raise UnsupportedError(f"mqt: features of width {vision_width} do not divide into 4 parts and {heads} heads")
        self.most_tokens = options.max_tokens
        side = math.isqrt(options.max_tokens - 1) + 1  # of the smallest square with so many cells
        self.query = nn.Parameter(torch.empty(options.max_tokens, vision_width))
        self.register_buffer("pos_embed", sine_cosine(side, side, vision_width))  # (side side, C)
        self.ln_q, self.ln_k, self.ln_v = (nn.LayerNorm(vision_width, eps=1e-6) for _ in range(3))
        self.attn = nn.MultiheadAttention(vision_width, heads, batch_first=True)
        self.proj = nn.Linear(vision_width, text_width, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.normal_(self.proj.weight, std=self.text_width**-0.5)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        seen, _ = self.attn(*self.attended(features, self._count(context)), need_weights=False)
        return self.proj(seen)

    def of_patches(self, features: VisualFeatures, patches: Tensor, context: ConnectorContext | None = None) -> Tensor:
        queries, keys, values = self.attended(features, self._count(context))
        index = patches[..., None].expand(-1, -1, keys.shape[-1])  # (B, k, C)
        seen, _ = self.attn(queries, keys.gather(1, index), values.gather(1, index), need_weights=False)
        return self.proj(seen)

    def _count(self, context: ConnectorContext | None) -> int:
        """m, all where nothing else is asked for."""
        return (context.budget if context is not None else None) or self.options.max_tokens

    def attended(self, features: VisualFeatures, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, m, C) of `count` visual tokens, keys (B, N, C) and values (B, N, C)."""
        x = features.tokens
        place = self.places(features.grid).to(x)  # (N, C)
        queries = self.ln_q(self.query[:count] + self.pos_embed[:count].to(self.query))
        keys = self.ln_k(place) if self.options.key_source == "position" else self.ln_k(x) + place
        return queries.expand(len(x), -1, -1), keys.expand(len(x), -1, -1), self.ln_v(x)

    def places(self, grid: tuple[int, int]) -> Tensor:
        """The position table (N, C) on the patches' grid."""
        side = math.isqrt(len(self.pos_embed))
        table = self.pos_embed.float().T.unflatten(1, (side, side))[None]  # (1, C, side, side)
        return F.interpolate(table, grid, mode="bicubic", align_corners=False)[0].flatten(1).T

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, self.options.max_tokens

    def entries(self) -> tuple[nn.Module, ...]:
        return (self.ln_v,) if self.options.key_source == "position" else (self.ln_k, self.ln_v)


def sine_cosine(rows: int, columns: int, width: int) -> Tensor:
    """(rows * columns, width): of each cell its column, then its row, as sines and cosines of width / 4 frequencies."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = torch.stack([column, row], -1).flatten(0, 1)[..., None] * frequency  # (cells, 2, width / 4)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(1).float()
