"""TokenPacker: Efficient Visual Projector for Multimodal LLM (arXiv 2407.02392): coarse tokens that look into their own block.

The patch map is shrunk s times by interpolation; each coarse token is the query of one attention over the s x s patches that it
covers, as several of the encoder's levels see them. Detail comes back in, and locality is kept, which a resampler loses.

    q = LN(W_q bilinear(x, 1 / s))                          x (B, N, C) -> (B, M, C), M = N / s^2
    k = LN(MLP_k(z)),  v = LN(MLP_v(z))                     z = levels side by side (B, N, levels C) -> (B, N, C)
    y_i = MLP(MHA(q_i, k_block(i), v_block(i)))             (B, M, D), raster order

W_q has no bias, MLP_k and MLP_v are Linear, GELU, Linear of width C, and the last MLP that of LLaVA-1.5. There is no residual, no
norm behind, and no position: where a patch lies in its block is told by its content alone. s = 2 averages the query's block,
s = 3 takes its centre patch, s = 4 averages the central four.

Constants are the published code's: levels 12, 16, 22, 23 of 24 blocks (0 the embeddings), one head per 128 channels, LN eps 1e-6,
matrices normal with deviation 0.02 and cut at 2. The paper draws one projection for query, key and value inside the attention;
the code has those above in front of the attention's own, and is followed. Grid and widths, fixed there, are the encoder's here.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures

HEAD_WIDTH = 128  # channels per attention head: 8 heads at 1024


class TokenPackerOptions(Options):
    """How many patches become one token, and which levels are looked into."""

    scale_factor: int = Field(2, ge=1, le=16, description="side s of the block of patches that becomes one token; paper 2, 3, 4")
    levels: tuple[int, ...] = Field(
        (12, 16, 22, 23), min_length=1, description="hidden states that keys and values are made of; 0 are the embeddings"
    )
    heads: int | None = Field(None, ge=1, description="attention heads; one per 128 channels when not given, 8 in the paper")


class TokenPacker(Connector):
    """Coarse queries, each over its block of fine tokens."""

    Options = TokenPackerOptions
    options: TokenPackerOptions
    mixes_tokens = True

    def __init__(self, options: TokenPackerOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        width, heads = vision_width, options.heads or max(1, vision_width // HEAD_WIDTH)
        if width % heads:
            raise UnsupportedError(f"tokenpacker: features of width {width} do not divide into {heads} heads")
        self.levels = options.levels
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj, self.v_proj = (
            nn.Sequential(nn.Linear(len(options.levels) * width, width), nn.GELU(), nn.Linear(width, width)) for _ in "kv"
        )
        self.ln_q, self.ln_k, self.ln_v = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, text_width), nn.GELU(), nn.Linear(text_width, text_width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        coarse, fine = self.coarse(features), self.level_states(features)  # (B, M, C), (B, N, levels C)
        query = self.ln_q(self.q_proj(coarse))
        key, value = self.ln_k(self.k_proj(fine)), self.ln_v(self.v_proj(fine))  # (B, N, C)
        blocks = [self.blocks(x, features.grid) for x in (key, value)]  # (B M, s s, C)
        seen, _ = self.attn(query.flatten(0, 1)[:, None], *blocks, need_weights=False)  # (B M, 1, C)
        return self.mlp(seen.view_as(query))

    def coarse(self, features: VisualFeatures) -> Tensor:
        """The patch map at 1 / s of its sides: (B, M, C)."""
        x = features.tokens
        maps = x.transpose(1, 2).unflatten(2, features.grid).float()  # (B, C, rows, columns)
        small = F.interpolate(maps, self.tokens(features.grid), mode="bilinear", align_corners=False)
        return small.flatten(2).transpose(1, 2).to(x)

    def blocks(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) in raster order -> (B M, s s, C), one row per coarse token."""
        s, (high, wide) = self.options.scale_factor, self.tokens(grid)
        return x.view(len(x), high, s, wide, s, -1).transpose(2, 3).reshape(len(x) * high * wide, s * s, -1)

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        s = self.options.scale_factor
        if grid[0] % s or grid[1] % s:
            raise UnsupportedError(
                f"tokenpacker: a grid of {grid[0]} x {grid[1]} patches has no whole blocks of {s} x {s}.",
                hint="Choose another scale_factor, or pictures of another size.",
            )
        return grid[0] // s, grid[1] // s

    def entries(self) -> tuple[nn.Module, ...]:
        return self.ln_q, self.k_proj[0], self.v_proj[0]
