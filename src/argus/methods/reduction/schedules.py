"""Schedules: the share of the visual tokens that each decoder layer sees.

A schedule is one share in [0, 1] per layer, non-increasing, of the N visual tokens that enter the language model. Shares,
not counts, so that one schedule serves pictures of any resolution; layer l sees round(r_l N) tokens, halves up. A hand-set drop
is a schedule of one step: FastV is `step(depth, K, 1 - R)`, all tokens leaving is `step(depth, K, 0)`.

Two budgets are in use and are not the same: the mean share, sum_l r_l / L, and the FLOPs of the decoder layers, which also have
text to compute. `mean_share` and `decoder_flops` turn a schedule into either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from argus.core.errors import ArgusError

Schedule = tuple[float, ...]
SATURATED = 40.0  # exp(-40) is nothing beside 1 in double precision


def checked(shares: Sequence[float], depth: int | None = None) -> Schedule:
    """The shares as a schedule.

    Raises:
        ArgusError: a share outside [0, 1], a share greater than the one before, or not one per layer.
    """
    schedule = tuple(float(share) for share in shares)
    if depth is not None and len(schedule) != depth:
        raise ArgusError(f"the schedule has {len(schedule)} shares, the language model {depth} layers.")
    for layer, share in enumerate(schedule):
        if not 0 <= share <= 1:
            raise ArgusError(f"the share of layer {layer} is {share}; shares are from 0 to 1.")
        if layer and share > schedule[layer - 1]:
            raise ArgusError(
                f"the share of layer {layer}, {share}, is greater than that of the layer before, {schedule[layer - 1]}.",
                hint="Tokens that left do not come back: shares fall with depth.",
            )
    return schedule


def step(depth: int, layer: int, keep: float) -> Schedule:
    """Everything in front of `layer`, the share `keep` from it on."""
    return (1.0,) * layer + (keep,) * (depth - layer)


def sigmoid(depth: int, keep: float, steepness: float, plateau: float = 1.0, first: int = 2) -> Schedule:
    """P-Sigmoid: shares that fall in an S, with a given mean.

        r(l) = a / (1 + exp(k ((l + 1) / L - c)))        for layers l >= first; 1 before

    The centre c is solved so that the mean of r over the layers from `first` on is `keep` exactly, which leaves the steepness k
    and the plateau a free. With a = keep the S is flat: FastV's step.

    Args:
        depth: L, layers of the language model.
        keep: mean share of the layers from `first` on.
        steepness: k > 0; great values make a step in the middle.
        plateau: a, the share from which the S falls; at least `keep` is taken.
        first: first layer, 0-based, that may see fewer tokens.
    """
    height, layers = max(plateau, keep), range(first, depth)
    if keep <= 0 or not layers or height <= keep:
        return step(depth, min(first, depth), keep)

    def shares(centre: float) -> list[float]:
        exponents = (steepness * ((layer + 1) / depth - centre) for layer in layers)
        return [height / (1 + math.exp(min(max(e, -SATURATED), SATURATED))) for e in exponents]

    low, high = -SATURATED / steepness, 1 + SATURATED / steepness
    for _ in range(100):  # halves the interval below double precision; the mean rises with the centre
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle)) < keep * len(layers) else (low, middle)
    return (1.0,) * first + tuple(shares(high))


def mean_share(schedule: Sequence[float]) -> float:
    """Products of visual tokens and layers, as a share of those without reduction."""
    return sum(schedule) / len(schedule)


def decoder_flops(schedule: Sequence[float], visual: int, text: int, width: int, ffn: int) -> float:
    """FLOPs of the decoder layers in prefill, 2 per multiply-accumulate, for Llama-shaped layers.

        2 sum_l (4 n D^2 + 2 n^2 D + 3 n D m)        n = text + round(r_l N)

    Args:
        visual, text: tokens of either kind.
        width: D.
        ffn: m, width of the SwiGLU's hidden layer.
    """
    lengths = [text + math.floor(visual * share + 0.5) for share in schedule]
    return float(sum(2 * (4 * n * width**2 + 2 * n**2 * width + 3 * n * width * ffn) for n in lengths))
