"""What a connector is: it turns an encoder's features into visual tokens of the language model's width."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.core.registry import Options, build, component
from argus.model.features import VisualFeatures


@dataclass(slots=True)
class ConnectorContext:
    """What beside the picture may steer a connector.

    Args:
        instruction: (B, S, W) the instruction as a text tower's layer has it, for connectors that read it.
        boxes: (B, K, 4) boxes of interest, relative to the tile; rows of -1 fill up tiles that have fewer.
        budget: visual tokens wanted per tile, for elastic connectors.
    """

    instruction: Tensor | None = None
    boxes: Tensor | None = None
    budget: int | None = None


class Connector(nn.Module, ABC):
    """Subclasses implement `forward` and `tokens`.

    A subclass may ask for more than the widths by naming it in its constructor, see `build_connector`.

    Args:
        options: the connector's own.
        vision_width: C of the features.
        text_width: D of the language model.

    Attributes:
        mixes_tokens: whether an output token depends on more than one input token.
        reads_instruction: whether visual tokens depend on the question, so that a picture's cannot serve several questions.
        reads_boxes: whether there is a token per box behind the picture's, see `objects`.
        resamples: whether tokens are queries that read the patches, which can read some of them alone, see `of_patches`.
        spatial: whether tokens lie on their grid as the patches do that they were made of.
        levels: hidden states of the encoder that it reads beside the tokens; none when empty.
        most_tokens: the most visual tokens per tile that may be asked of it; None where their number is fixed.
    """

    Options: ClassVar[type[Options]]
    mixes_tokens: bool = False
    reads_instruction: ClassVar[bool] = False
    reads_boxes: bool = False
    resamples: ClassVar[bool] = False
    spatial: bool = True
    levels: tuple[int, ...] = ()
    most_tokens: int | None = None

    def __init__(self, options: Any, *, vision_width: int, text_width: int) -> None:
        super().__init__()
        self.options, self.vision_width, self.text_width = options, vision_width, text_width

    @abstractmethod
    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        """Visual tokens (B, M, D)."""

    def objects(self, features: VisualFeatures, boxes: Tensor) -> Tensor:
        """Tokens (O, D) of all boxes (B, K, 4) that are none of the filling rows of -1.

        Raises:
            UnsupportedError: a connector that reads no boxes.
        """
        raise UnsupportedError(f"a {type(self).__name__} connector reads no boxes")

    def of_patches(self, features: VisualFeatures, patches: Tensor, context: ConnectorContext | None = None) -> Tensor:
        """Visual tokens (B, M, D) of some patches (B, k) of each tile alone, without prefix tokens.

        Raises:
            UnsupportedError: a connector whose tokens lie on the patches' grid.
        """
        raise UnsupportedError(f"a {type(self).__name__} connector makes no visual tokens of some patches alone")

    def tokens(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Grid of visual tokens that a patch grid becomes; M is its product.

        Raises:
            UnsupportedError: a grid that it cannot read.
        """
        return grid

    def entries(self) -> tuple[nn.Module, ...]:
        """The matrices and norms that meet the encoder's features first, see `standardise_connector`; none when not known."""
        return ()

    def level_states(self, features: VisualFeatures) -> Tensor:
        """The states of `levels`, without prefix tokens, side by side: (B, N, levels * C).

        Raises:
            UnsupportedError: an encoder that does not give them.
        """
        states, count = features.hidden_states, features.tokens.shape[1]
        if states is None or any(not -len(states) <= level < len(states) for level in self.levels):
            found = f"{len(states)} hidden states" if states else "no hidden states"
            raise UnsupportedError(
                f"a {type(self).__name__} connector reads the levels {list(self.levels)}, and the encoder gives {found}.",
                hint="Choose other levels: 0 are the embeddings, n is behind block n, negative numbers count from the end.",
            )
        chosen = [states[level][:, states[level].shape[1] - count :] for level in self.levels]
        if any(state.shape[1] != count for state in chosen):
            raise UnsupportedError("the encoder's hidden states lie on another grid than its tokens")
        return torch.cat(chosen, -1)

    def adopt(self, stored: Mapping[str, Tensor]) -> list[str]:
        """Start from another connector's weights, where name and shape are the same; their names."""
        own = self.state_dict()
        fitting = [name for name, weight in stored.items() if name in own and own[name].shape == weight.shape]
        for name in fitting:
            own[name].copy_(stored[name])
        return fitting

    def reset_parameters(self) -> None:
        """Start weights that may not be drawn at random, once all others are."""

    def statistics(self) -> dict[str, Tensor]:
        """What of the last training pass a stage's log should show, by name."""
        return {}


def budget_grid(wanted: int, most: int | None) -> tuple[int, int]:
    """Grid of visual tokens where so many are asked of a connector that gives at most `most`.

    Raises:
        UnsupportedError: their number is fixed, or it gives no such number.
    """
    if most is None:
        raise UnsupportedError(
            "visual_tokens: this model's connector gives a fixed number of visual tokens.",
            hint="The connector 'mqt' gives any number.",
        )
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= most:
        raise UnsupportedError(f"visual_tokens: the connector gives 1 to {most} visual tokens per tile, not {wanted!r}")
    return 1, wanted


def build_connector(spec: dict[str, dict[str, Any]], **known: Any) -> Connector:
    """The connector of {name: options}; of what is known of the model it gets what its constructor names.

    Args:
        known: vision_width, text_width, grid (rows and columns of patches at the trained size), instruction_width (of the text
            tower, where there is one), map_widths (channels of each feature map that the encoder gives).
    """
    name, options = next(iter(spec.items()))
    wanted = signature(component("connector", name).load().__init__).parameters
    return build("connector", name, options, **{key: value for key, value in known.items() if key in wanted})
