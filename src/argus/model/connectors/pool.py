"""InfMLLM: A Unified Framework for Visual-Language Tasks (arXiv 2311.06791), its pool-adapter: blocks averaged, then an MLP.

Blocks of patches are averaged to a grid of p x p, which keeps where things are; what a Q-Former or a resampler gives has lost it.

    v = W2 GELU(W1 avg_pool(z, s / p) + b1) + b2        z (B, s s, C) -> (B, p p, C) -> v (B, p p, D), raster order

The default p = 16 is the published code's (32 x 32 patches at 448 px). A grid that p does not divide is refused there as here;
`adaptive` pools it in blocks of unequal size. The LayerNorm of BLIP-2 in front, `ln_vision`, belongs to the vision tower.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures


class PoolOptions(Options):
    """The grid of visual tokens."""

    side: int = Field(16, ge=1, description="rows and columns p of visual tokens")
    adaptive: bool = Field(False, description="blocks of unequal size where p does not divide the patches' grid")
    hidden: int | None = Field(None, ge=1, description="width of the hidden layer; the language model's when not given")


class Pool(Connector):
    """Average pooling and two layers."""

    Options = PoolOptions
    options: PoolOptions
    mixes_tokens = True

    def __init__(self, options: PoolOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        hidden = options.hidden or text_width
        self.linear_1 = nn.Linear(vision_width, hidden)
        self.linear_2 = nn.Linear(hidden, text_width)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        maps = features.tokens.transpose(1, 2).unflatten(2, features.grid)  # (B, C, rows, columns)
        pooled = F.adaptive_avg_pool2d(maps, self.tokens(features.grid)).flatten(2).transpose(1, 2)  # (B, p p, C)
        return self.linear_2(F.gelu(self.linear_1(pooled)))

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        p = self.options.side
        if not self.options.adaptive and (grid[0] % p or grid[1] % p):
            raise UnsupportedError(
                f"pool: a grid of {grid[0]} x {grid[1]} patches cannot be averaged to {p} x {p} in blocks of one size.",
                hint="Choose a `side` that divides it, or adaptive: true.",
            )
        return p, p

    def entries(self) -> tuple[nn.Module, ...]:
        return (self.linear_1,)
