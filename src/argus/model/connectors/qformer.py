"""The Q-Former as a bridge: as many visual tokens as it has queries, whatever the picture's size.

TinyGPT-V: Efficient Multimodal Large Language Model via Small Backbones (arXiv 2312.16862) takes BLIP-2's frozen Q-Former and
puts two matrices behind it: one that MiniGPT-4 had trained for a large language model, and a new one into its small one.

    v = W2 (W1 QFormer(LN([cls; z])) + b1) + b2        z (B, N, C) -> (B, Q, W) -> (B, Q, H) -> v (B, Q, D)

Nothing stands between the two, so that they act as their product. H = 4096 is Vicuna's width; without `through` there is one
matrix, as in BLIP-2 (arXiv 2301.12597). The norm is BLIP-2's; the encoder's prefix tokens are kept, as there. A Q-Former that
does not learn has no dropout either.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, cat, nn

from argus.model.connectors.base import Connector, ConnectorContext
from argus.model.connectors.querying import QFormer, QFormerOptions
from argus.model.features import VisualFeatures


class QFormerBridgeOptions(QFormerOptions):
    """Sizes of the Q-Former, and what stands behind it."""

    through: int | None = Field(4096, ge=1, description="width between the two matrices; one matrix when not given")


class QFormerBridge(Connector):
    """Norm, Q-Former and one or two matrices."""

    Options: ClassVar[type[QFormerBridgeOptions]] = QFormerBridgeOptions
    options: QFormerBridgeOptions
    mixes_tokens = True
    resamples = True
    spatial = False

    def __init__(self, options: QFormerBridgeOptions, *, vision_width: int, text_width: int) -> None:
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        self.vision_norm = nn.LayerNorm(vision_width)
        self.qformer = QFormer(options, vision_width)
        self.project = nn.Linear(options.width, options.through or text_width)
        self.project_2 = nn.Linear(options.through, text_width) if options.through else nn.Identity()

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        return 1, self.options.queries

    def train(self, mode: bool = True) -> QFormerBridge:
        super().train(mode)
        self.qformer.train(mode and any(p.requires_grad for p in self.qformer.parameters()))
        return self

    def entries(self) -> tuple[nn.Module, ...]:
        return (self.vision_norm,)

    def picture(self, features: VisualFeatures) -> Tensor:
        """What the queries look at: (B, P + N, C)."""
        prefix = [] if features.prefix is None else [features.prefix]
        return self.vision_norm(cat([*prefix, features.tokens], 1))

    def fused(self, queries: Tensor, features: VisualFeatures) -> Tensor:
        """The states that stand for the picture: the queries', as they are."""
        return queries

    def of_patches(self, features: VisualFeatures, patches: Tensor, context: ConnectorContext | None = None) -> Tensor:
        return self(VisualFeatures(features.some(patches), (1, patches.shape[1])), context)

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        states = self.qformer(self.picture(features))  # (B, Q, W)
        return self.project_2(self.project(self.fused(states, features)))
