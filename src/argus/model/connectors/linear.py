"""The linear connector of LLaVA (Visual Instruction Tuning, arXiv 2304.08485): one matrix per patch token.

v = W z + b        z (B, N, C) -> v (B, N, D)
"""

from __future__ import annotations

from torch import Tensor, nn

from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures


class LinearOptions(Options):
    """Nothing to choose."""


class Linear(Connector):
    """One matrix."""

    Options = LinearOptions

    def __init__(self, options: LinearOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        self.linear = nn.Linear(vision_width, text_width)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        return self.linear(features.tokens)

    def entries(self) -> tuple[nn.Module, ...]:
        return (self.linear,)
