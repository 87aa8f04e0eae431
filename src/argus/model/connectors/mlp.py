"""The MLP connector of LLaVA-1.5 (Improved Baselines with Visual Instruction Tuning, arXiv 2310.03744), `mlp2x_gelu`.

    v = W2 GELU(W1 z + b1) + b2        z (B, N, C) -> v (B, N, D)

The submodules carry LLaVA's names, so its projector weights load unchanged.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.registry import Options
from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.features import VisualFeatures


class MLPOptions(Options):
    """Width of the hidden layer."""

    hidden: int | None = Field(None, ge=1, description="hidden width; the language model's when not given, as in LLaVA-1.5")


class MLP(Connector):
    """Two linear layers with GELU between."""

    Options = MLPOptions
    options: MLPOptions

    def __init__(self, options: MLPOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        hidden = options.hidden or text_width
        self.linear_1 = nn.Linear(vision_width, hidden)
        self.linear_2 = nn.Linear(hidden, text_width)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(features.tokens)))
