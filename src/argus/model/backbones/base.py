"""What a backbone is: a change of the language model that the composed model's config names and its files hold.

The language model stays a model of transformers. A backbone hooks its decoder layers and is itself a module of the composed
model, under the name `part`, so that its weights are saved, loaded and trained like those of any other part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from argus.core.registry import Options
from argus.model.backbones.fusion import Crossed, Fusion
from argus.model.token_map import TokenMap


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward pass that is about to begin.

    Args:
        known: the map of the sequence so far, this pass included: (B, past + S).
        past: positions before this pass.
        mask: attention mask as the language model gets it: (B, past + S), (B, 1, S, past + S), or None.
        cache: KV cache, where there is one already.
        crossed: the pictures that came with this pass, where some of their tiles stay out of the sequence.
        places: (b, L) picture of each position of the prompt that holds them, which may come in several passes; -1 for none. A
            sequence that the batch repeats has one row.
        start: positions in front of that prompt.
    """

    known: TokenMap
    past: int
    mask: Tensor | None
    cache: Any
    crossed: Crossed | None = None
    places: Tensor | None = None
    start: int = 0


class Backbone(nn.Module):
    """Subclasses hook the decoder layers when they are built.

    Args:
        options: the backbone's own.
        language_model: the decoder without its head, a model of transformers.

    Attributes:
        part: name of the module in the composed model.
        fusion: how pictures enter the language model.
        keeps_words: whether text without pictures is read as before.
    """

    Options: ClassVar[type[Options]]
    part: ClassVar[str]
    fusion: Fusion = "decoder"
    keeps_words: bool = True

    def __init__(self, options: Any, *, language_model: nn.Module) -> None:
        super().__init__()
        self.options = options

    def reset_parameters(self) -> None:
        """Draw the weights anew."""

    def begin(self, run: Pass) -> dict[str, Any]:
        """Arguments for the decoder layers, from which its hooks take them."""
        return {}

    def end(self, given: dict[str, Any], cache: Any) -> None:
        """After a pass: what `begin` gave, and the KV cache."""

    def statistics(self) -> dict[str, Tensor]:
        """What of the last training pass a stage's log should show, by name."""
        return {}
