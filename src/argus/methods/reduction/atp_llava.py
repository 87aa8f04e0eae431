"""ATP-LLaVA: Adaptive Token Pruning for Large Vision Language Models (arXiv 2412.00447).

How many visual tokens are needed depends on the layer, the picture and the question. In front of a few layers a module scores
each token twice, by what it is worth and by where it lies, and predicts a threshold for each score; a token above either stays.

    S_red = (S_self + S_cross) / 2, over its maximum     attention from visual tokens and from text, mean of heads and rows
    S_spa = 1 - lambda R  on a grid of every s-th row and column, R = 1 / s^2;  -inf elsewhere
    theta = sigmoid(w z + b), one for each score         z = Linear([S_self ; S_cross])
    m = max(sigmoid((S_red - theta_r) T), sigmoid((S_spa - theta_s) T))

Trained (objective `atp_llava`), m is a soft mask: log m is added to the logits of the token as a key, in all later layers, and
masks of successive modules multiply. Attached, the mask is hard: tokens with S_red > theta_r or S_spa > theta_s stay, with their
positions, the others leave. The sigmoid grows, so max(sigmoid(a T), sigmoid(b T)) = sigmoid(max(a, b) T): its logarithm needs no
epsilon.

Shapes: scores (T,), thresholds one per crop (picture or tile). Constants: modules in front of layers 4, 14 and 24 of 32, scaled
to the model's depth; s = 2, lambda = 3. No code is published, and the paper leaves open

- the temperature: 10 here; 100 stops the gradient of a closed gate;
- how scores of the order of 1 / S meet thresholds that start near 1/2: S_red is divided by its maximum in the crop, and
  thresholds start at 0.1 and 0.3;
- how vectors whose length varies enter a linear layer: they are put back on the crop's grid, zero where a token is gone, over
  their maximum, and pooled to `pool` x `pool` cells;
- which way S_self is read: attention received, as the rows of a softmax all have the same mean.

Scores carry no gradient. At least one token of a crop stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from argus.methods.learned import LearnedOptions, LearnedReducer
from argus.methods.reduction.base import Rows, Score, Step
from argus.methods.reduction.selectors import ranks
from argus.model.anatomy.base import Anatomy, VisualTokens

LAYERS, DEPTH = (4, 14, 24), 32  # the paper's modules, and the depth of its model
START = (0.1, 0.3)  # theta_r and theta_s before training: most tokens pass, and neither path is out of reach of a gradient


class AtpLlavaOptions(LearnedOptions):
    """Options of ATP-LLaVA."""

    keep: float = Field(
        0.25, ge=0, le=1, description="share of visual tokens behind the modules that training aims at; 1 leaves everything alone"
    )
    layers: tuple[int, ...] | None = Field(
        None, description="layers, 0-based, in front of which modules act; 4, 14, 24 of 32 at the model's depth when not given"
    )
    strides: tuple[int, ...] = Field(
        (2,), description="grids of the spatial score; of several, the greater score counts; none when empty"
    )
    sampling: float = Field(3.0, ge=0, description="lambda: how much less a denser grid is worth")
    temperature: float = Field(10.0, gt=0, description="T of the soft masks")
    pool: int = Field(16, ge=1, le=64, description="side of the pooled scores from which thresholds are predicted")
    hidden: int = Field(256, ge=1, description="width of z")

    @field_validator("strides")
    @classmethod
    def _sparse(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(stride < 2 for stride in value):
            raise ValueError("a stride is 2 or more")
        return value

    @field_validator("layers")
    @classmethod
    def _ascending(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (not value or list(value) != sorted(set(value))):
            raise ValueError("layers are given in ascending order, each once")
        return value


class Received(Score):
    """(2, T) attention that each visual token gets in the layer before: S_self and S_cross, mean over heads and rows."""

    attention: tuple[Rows, ...] = ("visual", "text")

    def __call__(self, step: Step) -> Tensor:
        tokens = step.tokens
        return torch.stack([step.attention(rows).mean(1)[tokens.item, tokens.column] for rows in self.attention])


class Thresholds(nn.Module):
    """(C, 2, pool, pool) scores of crops -> theta_r, theta_s, (C,) each."""

    def __init__(self, pool: int, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * pool * pool, hidden)
        self.redundancy, self.spatial = nn.Linear(hidden, 1), nn.Linear(hidden, 1)
        for head, start in zip((self.redundancy, self.spatial), START, strict=True):
            nn.init.constant_(head.bias, math.log(start / (1 - start)))

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(scores.device.type, enabled=False):  # thresholds of half precision would cut at other tokens
            z = self.mix(scores.flatten(1))
            return self.redundancy(z)[:, 0].sigmoid(), self.spatial(z)[:, 0].sigmoid()


class AtpLlava(LearnedReducer):
    """Keeps visual tokens above thresholds that depend on layer, picture and question.

    Attributes:
        counts: layer -> (B,) visual tokens that went on in the last pass, soft while the thresholds learn.
        total: (B,) how many there were at first.
    """

    Options = AtpLlavaOptions
    options: AtpLlavaOptions
    depends_on_question = True

    def __init__(self, options: AtpLlavaOptions) -> None:
        super().__init__(options)
        self.score = Received()
        self.acting: tuple[int, ...] = ()
        self.counts: dict[int, Tensor] = {}
        self.total = torch.empty(0)
        self.gate = torch.empty(0)  # (T,) product of the soft masks so far

    def make(self, anatomy: Anatomy) -> nn.Module:
        return nn.ModuleList(Thresholds(self.options.pool, self.options.hidden) for _ in self._modules(len(anatomy.layers)))

    def check(self, anatomy: Anatomy) -> None:
        self.acting = self._modules(len(anatomy.layers))
        super().check(anatomy)

    def _modules(self, depth: int) -> tuple[int, ...]:
        scaled = {max(1, int(layer * depth / DEPTH + 0.5)) for layer in LAYERS}
        return self.options.layers or tuple(sorted(scaled))

    def layers(self, depth: int) -> Sequence[int]:
        return () if self.options.keep == 1 else self._modules(depth)

    @property
    def soft(self) -> bool:
        """Whether thresholds learn, so that nothing is dropped."""
        return self.parts is not None and self.parts.training

    def bias(self, step: Step) -> Tensor | None:
        if not self.soft:
            return None
        mask = F.logsigmoid(self.margin(step) * self.options.temperature)  # (T,) log m
        first = step.layer == self.acting[0]
        self.gate = mask.exp() * (step.present if first else self.gate)
        self._count(step, self.gate)
        return mask

    def keep(self, step: Step) -> Tensor:
        if self.soft:
            return torch.ones_like(step.present)
        margin = self.margin(step)
        best = ranks(margin, step.tokens.crop, step.present) == 0
        kept = ((margin > 0) | best) & step.present
        self._count(step, kept.float())
        return kept

    def margin(self, step: Step) -> Tensor:
        """(T,) max(S_red - theta_r, S_spa - theta_s): what is above 0 stays."""
        assert isinstance(self.parts, nn.ModuleList)  # made in `check`
        tokens, o = step.tokens, self.options
        scores = self.score(step).masked_fill(~step.present, 0.0)  # (2, T)
        shown = pooled(over_maximum(scores, tokens), tokens, o.pool)  # (crops, 2, pool, pool)
        redundancy, spatial = self.parts[self.acting.index(step.layer)](shown)
        worth = over_maximum(redundancy_score(*scores), tokens) - redundancy[tokens.crop]
        place = spatial_score(tokens, o.strides, o.sampling) - spatial[tokens.crop]
        return torch.maximum(worth, place)

    def _count(self, step: Step, gate: Tensor) -> None:
        items = len(step.real)
        if step.layer == self.acting[0]:
            self.counts.clear()
            self.total = torch.bincount(step.tokens.item, minlength=items).float()
        self.counts[step.layer] = gate.new_zeros(items).index_add(0, step.tokens.item, gate)


def redundancy_score(from_visual: Tensor, from_text: Tensor) -> Tensor:
    """S_red before it is divided by its maximum."""
    return (from_visual + from_text) / 2


def spatial_score(tokens: VisualTokens, strides: Sequence[int], sampling: float) -> Tensor:
    """(T,) 1 - sampling / s^2 on every s-th row and column of a crop, the greatest of several s; -inf elsewhere."""
    wide = torch.tensor([crop.grid[1] for crop in tokens.crops], device=tokens.cell.device)[tokens.crop]  # (T,)
    row, column = tokens.cell // wide, tokens.cell % wide
    score = torch.full(tokens.cell.shape, float("-inf"), device=tokens.cell.device)
    for stride in strides:
        chosen = (row % stride == 0) & (column % stride == 0)
        score = torch.where(chosen, score.clamp(min=1 - sampling / stride**2), score)
    return score


def over_maximum(scores: Tensor, tokens: VisualTokens) -> Tensor:
    """(..., T) divided by their greatest in the crop."""
    index = tokens.crop.expand(scores.shape)
    most = scores.new_zeros(*scores.shape[:-1], len(tokens.crops)).scatter_reduce(-1, index, scores, "amax")
    return scores / most.gather(-1, index).clamp(min=1e-12)


def pooled(scores: Tensor, tokens: VisualTokens, side: int) -> Tensor:
    """(2, T) -> (crops, 2, side, side): means over the cells of each crop's grid; zeros where there is no token."""
    out = scores.new_zeros(len(tokens.crops), 2, side, side)
    grids = [crop.grid for crop in tokens.crops]
    for high, wide in set(grids):
        same = torch.tensor([grid == (high, wide) for grid in grids], device=scores.device)  # (crops,)
        number, own = same.cumsum(0) - 1, same[tokens.crop]
        maps = scores.new_zeros(int(same.sum()), 2, high * wide)
        maps[number[tokens.crop[own]], :, tokens.cell[own]] = scores[:, own].T
        out[same] = F.adaptive_avg_pool2d(maps.view(-1, 2, high, wide), side)
    return out
