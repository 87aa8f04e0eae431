"""G-Search and P-Sigmoid: Accelerating MLLMs by Searching Optimal Vision Token Reduction (arXiv 2412.00556).

Visual tokens leave layer by layer: each layer has its own share, from a schedule that is searched on a small set of questions
instead of set by hand. In front of layer l the survivors are ranked by the attention that text pays them in layer l - 1, and the
best round(r_l N) go on, in their original order and with their original positions.

    s_i = mean_heads mean_t A^(l-1)[t, i]        t: text behind the first picture, or the last prompt token only

r falls with depth, so survivors are nested and nobody comes back. The first layer sees everything and, as its ranking is unlike
that of the others, is not used to rank: the first drop is in front of layer `first` = 2 (0-based), unless 1 is asked for.

Without a schedule the shares are a P-Sigmoid (`schedules.sigmoid`) whose mean over the layers from `first` on is `keep`.
Schedules come from `schedule_search`; a step schedule ranked by the last token is FastV. N is what reaches the first drop, so
encoder-side reducers go well with it. No official code is published; ranking rows and the shape of the S are open in the paper,
and options here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from argus.core.errors import ArgusError, UnsupportedError
from argus.methods.calibration import Calibration, CalibrationOptions, refuse_uncalibrated
from argus.methods.reduction.base import Reducer, ReducerOptions, Step
from argus.methods.reduction.schedule_search import greedy, p_sigmoid
from argus.methods.reduction.schedules import Schedule, checked, sigmoid
from argus.methods.reduction.scores import LayerAttention, RandomScore
from argus.methods.reduction.selectors import groups, ranks, rounded
from argus.model.anatomy.base import Anatomy


class SearchOptions(CalibrationOptions):
    """How a schedule is searched."""

    method: Literal["greedy", "p_sigmoid"] = Field(
        "greedy", description="greedy: the least computation without loss (G-Search); p_sigmoid: the best quality for `keep`"
    )
    tolerance: float = Field(0.01, ge=0, le=1, description="greedy: accuracy that may be lost")
    tokens: int = Field(144, ge=1, description="greedy: visual tokens of a picture; counts of so many are searched")
    every: int = Field(1, ge=1, description="greedy: search every g-th layer and hold its number in between")
    minimise: Literal["bisect", "bayesian"] = Field("bisect", description="greedy: how a layer's number is found")
    rows: Literal["text", "last"] = Field("text", description="what ranks during the search")
    starts: int = Field(5, ge=1, description="p_sigmoid: random schedules at the beginning")
    steps: int = Field(20, ge=0, description="p_sigmoid: schedules chosen by expected improvement")


class GSearchOptions(ReducerOptions):
    """Options of G-Search."""

    schedule: tuple[float, ...] | None = Field(
        None, description="share of the visual tokens that each decoder layer sees, falling; a P-Sigmoid when not given"
    )
    keep: float = Field(0.5, ge=0, le=1, description="without a schedule: mean share of the layers from `first` on")
    steepness: float = Field(20.0, gt=0, le=1000, description="k of the P-Sigmoid; great values make a step")
    plateau: float = Field(1.0, ge=0, le=1, description="a of the P-Sigmoid: the share from which it falls")
    first: int = Field(2, ge=1, description="first layer, 0-based, in front of which tokens leave; 1 ranks by the first layer")
    rows: Literal["text", "last", "random"] = Field(
        "text", description="what ranks: attention of the text behind the picture, of the last token, or a lot as control"
    )
    seed: int = Field(0, description="of the lot")
    calibrate: SearchOptions | None = Field(None, description="search the schedule on questions, instead of giving it")

    @field_validator("schedule")
    @classmethod
    def _falls(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        try:
            return None if value is None else checked(value)
        except ArgusError as error:
            raise ValueError(error.text()) from None


class GSearch(Reducer):
    """Keeps, in front of each layer, the layer's own share of the visual tokens."""

    Options = GSearchOptions
    options: GSearchOptions
    depends_on_question = True

    def __init__(self, options: GSearchOptions) -> None:
        super().__init__(options)
        self.score = RandomScore(options.seed) if options.rows == "random" else LayerAttention(options.rows)
        self.shares: Schedule = ()
        self.entered = torch.empty(0, dtype=torch.long)  # (groups,) visual tokens of each prompt at the first drop

    @classmethod
    def calibrated(cls, options: GSearchOptions, questions: Calibration) -> GSearchOptions:
        """The options with the schedule that a search finds."""
        how = options.calibrate
        if how is None:
            return options
        depth = len(questions.anatomy.layers)

        def fixed(**changes: Any) -> GSearchOptions:
            given = options.model_dump(exclude_unset=True, exclude={"calibrate"})
            return GSearchOptions.model_validate({**given, **changes})

        def metric(schedule: Schedule) -> float:
            return questions.accuracy(fixed(schedule=schedule, rows=how.rows))

        if how.method == "greedy":
            found = greedy(
                metric,
                depth,
                how.tokens,
                how.tolerance,
                first=options.first,
                every=how.every,
                method=how.minimise,
                seed=how.seed,
            )
        else:
            found = p_sigmoid(metric, depth, options.keep, first=options.first, starts=how.starts, steps=how.steps, seed=how.seed)
        return fixed(schedule=found.schedule)

    def check(self, anatomy: Anatomy) -> None:
        refuse_uncalibrated(self.options.calibrate)
        first, depth = self.options.first, len(anatomy.layers)
        self.shares = self._schedule(depth)
        early = [layer for layer, share in enumerate(self.shares[:first]) if share < 1]
        if early:
            raise UnsupportedError(
                f"the schedule drops in front of layer {early[0]}, and layers before {first} see all tokens.",
                hint="first: 1 lets the first layer's attention rank." if early[0] == 1 else None,
            )
        super().check(anatomy)

    def _schedule(self, depth: int) -> Schedule:
        o = self.options
        if o.schedule is not None:
            try:
                return checked(o.schedule, depth)
            except ArgusError as error:
                raise UnsupportedError(error.text()) from None
        if o.first >= depth and o.keep < 1:
            raise UnsupportedError(f"no layer comes behind layer {o.first}: the language model has only {depth} layers.")
        return sigmoid(depth, o.keep, o.steepness, o.plateau, o.first)

    def layers(self, depth: int) -> Sequence[int]:
        return tuple(layer for layer in range(1, depth) if self.shares[layer] < self.shares[layer - 1])

    def keep(self, step: Step) -> Tensor:
        group = groups(step.tokens, "item")  # (T,)
        if step.layer == next(layer for layer, share in enumerate(self.shares) if share < 1):
            self.entered = torch.bincount(group[step.present], minlength=int(group.max()) + 1)
        budget = rounded(self.entered, self.shares[step.layer])
        return ranks(self.score(step), group, step.present) < budget[group]
