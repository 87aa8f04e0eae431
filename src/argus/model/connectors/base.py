"""What a connector is: it turns an encoder's features into visual tokens of the language model's width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from argus.core.registry import Options
from argus.model.features import VisualFeatures


@dataclass(slots=True)
class ConnectorContext:
    """What beside the picture may steer a connector.

    Args:
        instruction: (B, S, D) embedded instruction, for connectors that read it.
        boxes: (B, K, 4) relative boxes of interest.
        budget: visual tokens wanted per tile, for elastic connectors.
    """

    instruction: Tensor | None = None
    boxes: Tensor | None = None
    budget: int | None = None


class Connector(nn.Module, ABC):
    """Subclasses implement `forward` and `tokens`.

    Args:
        options: the connector's own.
        vision_width: C of the features.
        text_width: D of the language model.
    """

    Options: ClassVar[type[Options]]
    mixes_tokens: ClassVar[bool] = False  # whether an output token depends on more than one input token

    def __init__(self, options: Any, *, vision_width: int, text_width: int) -> None:
        super().__init__()
        self.options, self.vision_width, self.text_width = options, vision_width, text_width

    @abstractmethod
    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        """Visual tokens (B, M, D)."""

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Grid of visual tokens that a patch grid becomes; M is its product."""
        return grid
