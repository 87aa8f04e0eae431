"""FasterVLM: [CLS] Attention is All You Need for Training-Free Visual Token Pruning (arXiv 2412.01818).

The attention of the vision encoder's CLS token on the patches says which of them carry the picture; text-to-image
attention in the language model does not (it drifts to late positions and spreads thin). The T patches with the most
CLS attention are kept, before the language model sees any.

    a = mean_heads softmax(q_cls K^T / sqrt(d))[patches]      (N,), softmax over CLS and patches, not renormalised
    kept = the T greatest of a, in raster order

Shapes: a (crops, N); each crop (picture, tile or frame) keeps its own T. The attention is that of the block which
made the features (LLaVA-1.5: the next to last of 24). Only the CLS row is computed, so the encoder keeps its fused
kernels. T = round(N * keep): 288, 144, 58, 29 of 576 for 0.5, 0.25, 0.1, 0.05, as in the paper's tables.

The paper renumbers survivors consecutively; `positions: original` keeps their places, and models with row and column
positions (mRoPE) always do. The published code selects after the projection, which for a per-token connector gives
the same tokens as selecting before it; here tokens are dropped in front of the first decoder layer. `tokens: null`
and T >= N mean no pruning (the published code fails on them). For pictures in tiles (LLaVA-NeXT) the published code packs
tiles without cutting padding away and without line breaks; here the model's own packing stays, a break as long as its line
has a token, and T is counted per crop, so a prompt has T x crops visual tokens and those breaks. Encoders without a CLS
token are not covered by the paper: the attention that a patch receives, averaged over all queries, stands in (Argus's
choice; `without_cls: error` refuses instead).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from argus.methods.reduction.base import Positions, Reducer, ReducerOptions
from argus.methods.reduction.scores import EncoderAttention
from argus.methods.reduction.selectors import TopK


class FasterVLMOptions(ReducerOptions):
    """Options of FasterVLM."""

    keep: float = Field(0.25, ge=0, le=1, description="share of each crop's visual tokens that is kept")
    tokens: int | None = Field(None, ge=0, description="visual tokens kept per crop, instead of a share")
    positions: Positions = Field(
        "consecutive",
        description="consecutive: survivors are renumbered, as in the paper; original: they keep their place. "
        "Models with row and column positions (mRoPE) always keep them.",
    )
    without_cls: Literal["error", "received"] = Field(
        "received", description="encoders without CLS: refuse, or score a patch by the attention it receives"
    )


class FasterVLM(Reducer):
    """Keeps the patches with the most CLS attention."""

    Options = FasterVLMOptions
    options: FasterVLMOptions

    def __init__(self, options: FasterVLMOptions) -> None:
        super().__init__(options)
        self.score, self.select = EncoderAttention(options.without_cls), TopK(options.keep, options.tokens)

    def layers(self, depth: int) -> Sequence[int]:
        return (0,)
