"""Selectors: which visual tokens stay, by their scores.

A budget is counted per group: `crop` (picture, tile or frame), `image` (all tiles of a picture) or `item` (the whole
prompt). Survivors always keep their raster order; only the set is chosen here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from argus.model.anatomy.base import VisualTokens

Per = Literal["crop", "image", "item"]


class TopK:
    """The best tokens of each group: a share of them, or a fixed number.

    The share keeps round(N * keep) of N tokens, halves up: 576 at 0.9, 0.75, 0.5, 0.25, 0.1, 0.05 give 518, 432, 288,
    144, 58, 29. Equal scores are broken by the earlier place.

    Args:
        keep: share of each group's tokens.
        tokens: number of each group's tokens, instead of a share; a group that has no more is left whole.
        per: what a group is.
    """

    def __init__(self, keep: float, tokens: int | None = None, per: Per = "crop") -> None:
        self.share, self.tokens, self.per = keep, tokens, per

    def __call__(self, scores: Tensor, tokens: VisualTokens, present: Tensor) -> Tensor:
        group = groups(tokens, self.per)
        many = int(group.max()) + 1 if len(group) else 0
        sizes = torch.bincount(group[present], minlength=many)  # (groups,)
        if self.tokens is None:
            budget = (sizes.double() * self.share + 0.5).floor().long()
        else:
            budget = torch.full_like(sizes, self.tokens)
        return ranks(scores, group, present) < budget[group]


class Threshold:
    """Tokens whose score is above a limit: one for all, or one per token (T,) where it depends on the instance."""

    def __init__(self, above: float | Tensor) -> None:
        self.above = above

    def __call__(self, scores: Tensor, tokens: VisualTokens, present: Tensor) -> Tensor:
        return scores > self.above


def groups(tokens: VisualTokens, per: Per) -> Tensor:
    """(T,) number of the group that each token belongs to."""
    if per == "crop":
        return tokens.crop
    keys = [(c.item, c.image) if per == "image" else (c.item,) for c in tokens.crops]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([number[key] for key in keys], device=tokens.crop.device, dtype=torch.long)[tokens.crop]


def ranks(scores: Tensor, group: Tensor, present: Tensor) -> Tensor:
    """(T,) place of each token in its group, 0 = greatest score; tokens that are not present come last."""
    order = scores.float().masked_fill(~present, float("-inf")).argsort(descending=True, stable=True)
    order = order[(group * 2 + ~present)[order].argsort(stable=True)]  # by group, present ones first
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    sizes = torch.bincount(group, minlength=1)
    return place - (sizes.cumsum(0) - sizes)[group]
