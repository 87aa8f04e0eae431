"""The MLP connector of LLaVA-1.5 (Improved Baselines with Visual Instruction Tuning, arXiv 2310.03744), `mlp2x_gelu`.

    v = W2 GELU(W1 z + b1) + b2        z (B, N, C) -> v (B, N, D)

The submodules carry LLaVA's names, so its projector weights load unchanged. With `pool` squares of tokens are averaged behind the
layers, the plainest of bottlenecks.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures


class MLPOptions(Options):
    """Width of the hidden layer, and how many tokens become one."""

    hidden: int | None = Field(None, ge=1, description="hidden width; the language model's when not given, as in LLaVA-1.5")
    pool: int = Field(1, ge=1, description="side of the squares of tokens that are averaged behind the layers; 1 for none")


class MLP(Connector):
    """Two linear layers with GELU between."""

    Options: ClassVar[type[MLPOptions]] = MLPOptions
    options: MLPOptions

    def __init__(self, options: MLPOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        self.mixes_tokens = options.pool > 1
        hidden = options.hidden or text_width
        self.linear_1 = nn.Linear(vision_width, hidden)
        self.linear_2 = nn.Linear(hidden, text_width)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        return self.project(features.tokens, features.grid)

    def entries(self) -> tuple[nn.Module, ...]:
        return (self.linear_1,)

    def project(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) on a grid -> visual tokens (B, M, D)."""
        tokens = self.linear_2(F.gelu(self.linear_1(tokens)))  # (B, N, D)
        if self.options.pool == 1:
            return tokens
        maps = tokens.transpose(1, 2).unflatten(2, grid)  # (B, D, rows, columns)
        return F.avg_pool2d(maps, self.options.pool, ceil_mode=True).flatten(2).transpose(1, 2)

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        return -(-grid[0] // self.options.pool), -(-grid[1] // self.options.pool)
