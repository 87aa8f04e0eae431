"""The predictors of Dynamic-LLaVA (arXiv 2412.00876): which visual and which generated tokens later layers should see.

Both read the hidden states x that enter a decoder layer and give two logits per token, keep and drop. With `width` w:

    image   h = GELU(W LayerNorm(x)) * prev          (G, N, w), then `blocks` pre-norm transformer blocks without positions
            local, shared = h[:, :, :w/2], mean over prev of h[:, :, w/2:]
            logits = MLP([local ; shared])           w -> w/2 -> w/4 -> 2, GELU in between
    text    logits = MLP(GELU(W LayerNorm(x)))       w -> w/2 -> w/4 -> 2, each token by itself

so that the image predictor compares the tokens of a picture with each other, and the text predictor can run on one token at a
time. `prev` (G, N, 1) is 1 for tokens that are still there; others, and padding, change nothing: the published code zeroes them
but lets the blocks attend to them, here nothing does. Sizes are the published configuration's: w = 512, 8 heads, 2 blocks,
MLPs four times as wide, queries, keys and values without bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence


class Padded(NamedTuple):
    """Visual tokens by picture: states (G, N, D), and which are still there (G, N, 1); `real` (G, N) is False at padding."""

    states: Tensor
    prev: Tensor
    real: Tensor


def by_picture(states: Tensor, present: Tensor, group: Tensor) -> Padded:
    """Tokens (T, D), of which some are `present` (T,), as rows of their pictures; `group` (T,) counts up from 0."""
    sizes = torch.bincount(group).tolist()
    real = pad_sequence([present.new_ones(size) for size in sizes], batch_first=True)
    prev = pad_sequence(list(present.split(sizes)), batch_first=True)
    return Padded(pad_sequence(list(states.split(sizes)), batch_first=True), prev[..., None].to(states.dtype), real)


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width // 2),
        nn.GELU(),
        nn.Linear(width // 2, width // 4),
        nn.GELU(),
        nn.Linear(width // 4, 2),
    )


class Block(nn.Module):
    """A pre-norm transformer block that attends to tokens that are there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, prev: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (G, H, N, d)
        there = prev[:, None, None, :, 0] > 0  # (G, 1, 1, N)
        there = there | torch.eye(length, dtype=torch.bool, device=x.device)  # no row of the softmax is empty
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class ImagePredictor(nn.Module):
    """(G, N, D), prev (G, N, 1) -> logits (G, N, 2) of keep and drop."""

    def __init__(self, hidden: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width), nn.GELU())
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.head = _head(width)

    def forward(self, x: Tensor, prev: Tensor) -> Tensor:
        h = self.inner(x) * prev  # (G, N, w)
        for block in self.blocks:
            h = block(h, prev)
        local, shared = h.chunk(2, dim=-1)  # (G, N, w / 2)
        shared = (shared * prev).sum(1, keepdim=True) / prev.sum(1, keepdim=True).clamp(min=1)  # (G, 1, w / 2)
        return self.head(torch.cat([local, shared.expand_as(local)], dim=-1))


class TextPredictor(nn.Module):
    """(..., D) -> logits (..., 2) of keep and drop."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width), nn.GELU())
        self.head = _head(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x))


class Predictors(nn.Module):
    """What Dynamic-LLaVA trains beside the model."""

    def __init__(self, hidden: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.image, self.text = ImagePredictor(hidden, width, heads, blocks), TextPredictor(hidden, width)
