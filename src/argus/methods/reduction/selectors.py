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
        least: fewest tokens of a group that a share keeps.
    """

    def __init__(self, keep: float, tokens: int | None = None, per: Per = "crop", least: int = 0) -> None:
        self.share, self.tokens, self.per, self.least = keep, tokens, per, least

    def __call__(self, scores: Tensor, tokens: VisualTokens, present: Tensor) -> Tensor:
        group = groups(tokens, self.per)
        many = int(group.max()) + 1 if len(group) else 0
        sizes = torch.bincount(group[present], minlength=many)  # (groups,)
        if self.tokens is None:
            budget = rounded(sizes, self.share).clamp(min=self.least)
        else:
            budget = torch.full_like(sizes, self.tokens)
        return ranks(scores, group, present) < budget[group]


class Rows:
    """Whole rows of each crop's grid, those with the greatest mean score.

    Of the R rows that still hold tokens, max(1, round(R * keep)) stay, halves up; none for keep = 0. Equal rows are taken
    from the top.

    Args:
        keep: share of each crop's rows.
        exact: keep round(N * keep) tokens instead: whole rows, and of the next best row its best tokens.
    """

    def __init__(self, keep: float, exact: bool = False) -> None:
        self.share, self.exact = keep, exact

    def __call__(self, scores: Tensor, tokens: VisualTokens, present: Tensor) -> Tensor:
        high = torch.tensor([c.grid[0] for c in tokens.crops], device=scores.device)  # (crops,)
        wide = torch.tensor([c.grid[1] for c in tokens.crops], device=scores.device)
        first = high.cumsum(0) - high  # rows are numbered through all crops
        row = first[tokens.crop] + tokens.cell // wide[tokens.crop]  # (T,)
        count = torch.bincount(row[present], minlength=int(high.sum()))  # (rows,) tokens that are there
        total = torch.zeros(len(count), dtype=torch.float64, device=scores.device).index_add(
            0, row[present], scores[present].double()
        )
        crop = torch.repeat_interleave(torch.arange(len(high), device=scores.device), high)
        rank = ranks(total / count.clamp(min=1), crop, count > 0)  # (rows,) 0 = best of its crop
        least = int(self.share > 0)
        if self.exact:
            place = ranks(scores, tokens.crop, present)  # best tokens first ...
            place = ranks(-(rank[row] * (len(row) + 1) + place).double(), tokens.crop, present)  # ... row by row
            sizes = torch.bincount(tokens.crop[present], minlength=len(high))
            return place < rounded(sizes, self.share).clamp(min=least)[tokens.crop]
        rows = torch.bincount(crop[count > 0], minlength=len(high))
        return rank[row] < rounded(rows, self.share).clamp(min=least)[tokens.crop]


class Threshold:
    """Tokens whose score is above a limit: one for all, or one per token (T,) where it depends on the instance."""

    def __init__(self, above: float | Tensor) -> None:
        self.above = above

    def __call__(self, scores: Tensor, tokens: VisualTokens, present: Tensor) -> Tensor:
        return scores > self.above


def rounded(sizes: Tensor, share: float) -> Tensor:
    """A share of each size, to the nearest whole number, halves up."""
    return (sizes.double() * share + 0.5).floor().long()


def groups(tokens: VisualTokens, per: Per) -> Tensor:
    """(T,) number of the group that each token belongs to."""
    if per == "crop":
        return tokens.crop
    keys = [(c.item, c.image) if per == "image" else (c.item,) for c in tokens.crops]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([number[key] for key in keys], device=tokens.crop.device, dtype=torch.long)[tokens.crop]


def ranks(scores: Tensor, group: Tensor, present: Tensor) -> Tensor:
    """(T,) place of each token in its group, 0 = greatest score; tokens that are not present come last."""
    order = scores.double().masked_fill(~present, float("-inf")).argsort(descending=True, stable=True)
    order = order[(group * 2 + ~present)[order].argsort(stable=True)]  # by group, present ones first
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    sizes = torch.bincount(group, minlength=1)
    return place - (sizes.cumsum(0) - sizes)[group]
