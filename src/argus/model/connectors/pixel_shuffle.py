"""Pixel shuffle and an MLP, the connector of InternVL 1.5 (How Far Are We to GPT-4V?, arXiv 2404.16821) and of NVLM-D (NVLM: Open
Frontier-Class Multimodal LLMs, arXiv 2409.11402).

Squares of f x f patches are put side by side on the channels: nothing is averaged away, and a fourth of the tokens is left.

    u = blocks(z)                          z (B, N, C) -> (B, N / f^2, f^2 C), patches of a square row by row
    v = W2 GELU(W1 LN(u))                  -> (B, N / f^2, D)

The order of channels is that of both published codes (version 2 of their shuffle). NVLM's matrices have no bias, InternVL's have
one (`bias`). The hidden layer is as wide as the language model, as InternVL's is.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures


class PixelShuffleOptions(Options):
    """Side of the squares, and the MLP."""

    factor: int = Field(2, ge=1, le=8, description="side f of the square of patches that becomes one token")
    hidden: int | None = Field(None, ge=1, description="width of the hidden layer; the language model's when not given")
    bias: bool = Field(False, description="matrices with a bias, as in InternVL; NVLM has none")


class PixelShuffle(Connector):
    """f x f patches on the channels, LayerNorm and two layers."""

    Options = PixelShuffleOptions
    options: PixelShuffleOptions
    mixes_tokens = True

    def __init__(self, options: PixelShuffleOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        width, hidden = vision_width * options.factor**2, options.hidden or text_width
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, hidden, bias=options.bias)
        self.linear_2 = nn.Linear(hidden, text_width, bias=options.bias)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        f, (high, wide) = self.options.factor, self.tokens(features.grid)
        maps = features.tokens.view(-1, high, f, wide, f, self.vision_width)  # (B, h, f, w, f, C)
        squares = maps.transpose(2, 3).reshape(len(maps), high * wide, -1)  # (B, M, f f C)
        return self.linear_2(F.gelu(self.linear_1(self.norm(squares))))

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        f = self.options.factor
        if grid[0] % f or grid[1] % f:
            raise UnsupportedError(f"pixel_shuffle: a grid of {grid[0]} x {grid[1]} patches has no whole squares of {f} x {f}")
        return grid[0] // f, grid[1] // f

    def entries(self) -> tuple[nn.Module, ...]:
        return (self.norm,)
