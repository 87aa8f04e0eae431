"""FoPru: Focal Pruning for Efficient Large Vision-Language Models (arXiv 2411.14164).

The vision encoder's own attention says which patches matter. They are kept one by one, or in whole rows of the patch
grid, so that what continues sideways - a line of text, a row of a table - survives as one piece; then the kept tokens
return to their original order.

    s_i = mean_heads A[CLS, i]                              with a CLS token
    s_i = mean_heads mean_j A[j, i]                         without: the attention that patch i receives
    rank:  the max(1, round(r N)) tokens with the greatest s
    row:   the max(1, round(r g_h)) rows with the greatest mean_j s_ij, completely

Shapes: s (crops, N), N = g_h x g_w; each crop (picture, tile, frame) keeps its own share r, rows in its own grid. A is the
attention of the block which made the features (LLaVA-1.5: the next to last of 24), softmax over all keys. The paper speaks
of the attention of the vision encoder; the CLS row is how that is read here for CLIP, and with it `rank` keeps what FasterVLM
keeps. Where a connector merges patches, a token's score is the mean over the patches in it.

`row` keeps multiples of g_w tokens: r = 0.1 of 24 rows is 2 rows, 48 of 576 tokens, not 58. `budget: tokens` fills up with the
best tokens of the next row (Argus's addition). Where tiles end in line breaks of their own, a break leaves with the
last token of its line. Default r is 0.25, at which the paper reports about one point lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from argus.methods.reduction.base import Positions, Reducer, ReducerOptions
from argus.methods.reduction.scores import EncoderAttention
from argus.methods.reduction.selectors import Rows, TopK


class FoPruOptions(ReducerOptions):
    """Options of FoPru."""

    keep: float = Field(0.25, ge=0, le=1, description="share of each crop's visual tokens (rank) or rows (row) that is kept")
    strategy: Literal["rank", "row"] = Field(
        "rank", description="rank: the best tokens, wherever they are; row: the best whole rows, for text, tables and documents"
    )
    budget: Literal["rows", "tokens"] = Field(
        "rows", description="of `row`: whole rows only, or the exact share of tokens with the next row in part"
    )
    positions: Positions = Field(
        "consecutive",
        description="consecutive: survivors are renumbered, as in the paper; original: they keep their place. "
        "Models with row and column positions (mRoPE) always keep them.",
    )


class FoPru(Reducer):
    """Keeps the patches, or the rows of patches, that the encoder attends to."""

    Options = FoPruOptions
    options: FoPruOptions

    def __init__(self, options: FoPruOptions) -> None:
        super().__init__(options)
        self.score = EncoderAttention("received")
        if options.strategy == "row":
            self.select = Rows(options.keep, exact=options.budget == "tokens")
        else:
            self.select = TopK(options.keep, least=int(options.keep > 0))

    def layers(self, depth: int) -> Sequence[int]:
        return (0,)
