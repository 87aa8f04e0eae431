"""What a reduction of visual tokens is: where it drops, and which tokens it keeps there.

A reducer names decoder layers (0 = before the language model) and, when a prompt with pictures passes one of them,
says which visual tokens go on. Most are a score producer and a selector:

    class Mine(Reducer):
        def __init__(self, options):
            super().__init__(options)
            self.score, self.select = EncoderAttention(), TopK(options.keep)

        def layers(self, depth):
            return (0,)

A reducer that needs more - thresholds per prompt, all tokens leaving at once - overrides `keep` and reads the `Step`.
What is dropped, cached, masked, renumbered and recorded is not its business: `argus.methods.layer_plan` does that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.anatomy.base import Anatomy, Listener, VisualTokens

if TYPE_CHECKING:
    from argus.methods.layer_run import Run

Positions = Literal["consecutive", "original"]
Rows = Literal["last", "text", "visual"]


class ReducerOptions(Options):
    """Options that every reducer has."""

    keep: float = Field(0.5, ge=0, le=1, description="share of the visual tokens that reach the reducer that it keeps")
    positions: Positions = Field(
        "original",
        description="consecutive: survivors are renumbered; original: they keep their place. "
        "Models with row and column positions (mRoPE) always keep them.",
    )
    apply: Literal["drop", "mask"] = Field(
        "drop",
        description="drop: tokens leave the sequence; mask: they stay in it, unseen. The results are equal; masking keeps "
        "shapes fixed and saves nothing.",
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A prompt about to enter a decoder layer.

    Args:
        layer: the layer, 0-based.
        tokens: the visual tokens of the prompt, T of them, dropped ones included.
        present: (T,) bool, which of them are still there.
        hidden: (B, S, D) input of the layer, aligned with the prompt; positions dropped earlier hold zeros.
        real: (B, S) bool, False at padding.
        attention: (rows) -> (B, H, S), attention of the previous layer averaged over query rows, one of those that the
            reducer's score lists. Without gradient.
        patches: (kind) -> (T,), attention in the vision encoder: of the CLS query ("cls"), or received by a patch
            from all patches ("received").
        fingerprints: () -> (T,) int64, a number made from the pixels of each token's crop.
        ids: (B, S) token ids of the prompt.
        positions: position ids as the language model gets them, (B, S) or (3 or 4, B, S); None where it makes its own.
        alone: (inputs_embeds, ...) -> output of the language model, run in between and by itself: nothing acts in it that is
            attached, and the pass that is under way does not notice.
    """

    layer: int
    tokens: VisualTokens
    present: Tensor
    hidden: Tensor
    real: Tensor
    attention: Callable[[Rows], Tensor]
    patches: Callable[[Literal["cls", "received"]], Tensor]
    fingerprints: Callable[[], Tensor]
    ids: Tensor
    positions: Tensor | None
    alone: Callable[..., Any]

    def text(self) -> Tensor:
        """(B, S) bool: text tokens behind an item's first visual token."""
        return text_rows(self.tokens, self.real)


def text_rows(tokens: VisualTokens, real: Tensor) -> Tensor:
    """(B, S) bool: which positions hold text behind the first visual token of their item."""
    pictures = tokens.pictures(*real.shape)
    return real & ~pictures & (pictures.cumsum(1) > 0)


class Score(ABC):
    """Gives each visual token a number (T,); greater is more worth keeping.

    Attributes:
        attention: rows of the previous layer's attention that it reads.
        patches: attention in the encoder that it reads.
        fingerprints: whether it reads fingerprints of the pixels.
    """

    attention: tuple[Rows, ...] = ()
    patches: Literal["cls", "received"] | None = None
    fingerprints: bool = False

    def check(self, anatomy: Anatomy) -> None:  # noqa: B027 - most scores work on every model
        """Adapts to a model; raises UnsupportedError, with the reason, if it cannot work there."""

    @abstractmethod
    def __call__(self, step: Step) -> Tensor: ...


class Selector(Protocol):
    """Chooses tokens by their scores."""

    def __call__(self, scores: Tensor, tokens: VisualTokens, present: Tensor) -> Tensor:
        """(T,) bool: which tokens stay; entries that are not present do not matter."""


class Reducer(ABC):
    """Drops visual tokens in front of some decoder layers.

    Attributes:
        score, select: what `keep` uses, unless it is overridden.
        depends_on_question: the choice reads text, so that a prefix with only the picture cannot stand for all
            questions.
    """

    Options: ClassVar[type[ReducerOptions]] = ReducerOptions
    depends_on_question: ClassVar[bool] = False
    score: Score
    select: Selector

    def __init__(self, options: ReducerOptions) -> None:
        self.options = options

    def check(self, anatomy: Anatomy) -> None:
        """Adapts to a model, before anything runs; raises UnsupportedError, with the reason, if it cannot work there."""
        self.score.check(anatomy)
        layers = self.layers(len(anatomy.layers))
        if self.score.attention and 0 in layers:
            raise UnsupportedError("there is no attention to read in front of layer 0.")
        if any(not 0 <= layer < len(anatomy.layers) for layer in layers):
            raise UnsupportedError(
                f"it drops before layer {max(layers)}, and the language model has only {len(anatomy.layers)} layers."
            )

    @abstractmethod
    def layers(self, depth: int) -> Sequence[int]:
        """The decoder layers, 0-based, in front of which it drops, in a language model of `depth` layers."""

    def keep(self, step: Step) -> Tensor:
        """(T,) bool: which visual tokens enter the layer; entries that are not present do not matter."""
        return self.select(self.score(step), step.tokens, step.present)

    def keep_generated(self, layer: int, hidden: Tensor) -> Tensor | None:
        """(B, G) bool: which generated tokens later ones can look at, in this layer and all behind it; None for all.

        Asked in front of the same layers as `keep`. With a KV cache a step holds one generated token, which sees itself in any
        case and is forgotten afterwards; without one it holds all that were generated, and those not kept leave, but the last.
        A single token behind a cache counts as generated, several are a prompt that goes on.

        Args:
            hidden: (B, G, D) input of the layer for the generated tokens.
        """
        return None

    def hooks(self, anatomy: Anatomy, run: Callable[[], Run | None]) -> list[Listener]:
        """Hooks of its own, for as long as it is attached, that change what layers compute for visual tokens.

        Args:
            run: () -> the forward pass that is running; its `layout` says which keys of a layer are visual tokens.
        """
        return []

    def rewrite(self, step: Step) -> Tensor | None:
        """(B, S, D) what enters the layer instead of `step.hidden`, asked before `keep`; None for no change.

        For positions that stay; in front of layer 0 these are embeddings. Gradients flow through it.
        """
        return None

    def bias(self, step: Step) -> Tensor | None:
        """(T,) added to the attention logits of a token as a key, in this layer and all later ones; None for nothing.

        A soft mask for training: the logarithm of a gate in (0, 1]. Gradients flow through it.
        """
        return None


def everything(tokens: VisualTokens) -> Tensor:
    """(T,) bool, all True."""
    return torch.ones(len(tokens), dtype=torch.bool, device=tokens.item.device)
