"""Random pruning: the control that every informed choice must beat.

Each picture (tile, frame) keeps a uniformly drawn set of round(keep * N) of its N tokens. The draw is a hash of
(seed, pixels, place), so a picture keeps the same set alone or in any batch, on any device, and different pictures
keep different sets. `unit: row` draws whole rows of the grid, the control of methods that keep rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from argus.methods.reduction.base import Positions, Reducer, ReducerOptions
from argus.methods.reduction.scores import RandomScore
from argus.methods.reduction.selectors import Rows, TopK


class RandomOptions(ReducerOptions):
    """Options of random pruning."""

    positions: Positions = Field(
        "consecutive",
        description="as in FasterVLM, whose control it is. consecutive: survivors are renumbered; original: they keep their "
        "place. Models with row and column positions (mRoPE) always keep them.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the draw")
    unit: Literal["token", "row"] = Field("token", description="what is drawn: single tokens, or whole rows of the grid")
    layer: int = Field(0, ge=0, description="decoder layer in front of which tokens are dropped; 0 is before the first")


class Random(Reducer):
    """Keeps a uniformly drawn set."""

    Options = RandomOptions
    options: RandomOptions

    def __init__(self, options: RandomOptions) -> None:
        super().__init__(options)
        self.layer = options.layer
        self.score = RandomScore(options.seed)
        self.select = TopK(options.keep) if options.unit == "token" else Rows(options.keep)

    def layers(self, depth: int) -> Sequence[int]:
        return (self.layer,)
