"""Selectors against sorting by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from argus.methods.reduction.selectors import Threshold, TopK, groups, ranks
from argus.model.anatomy.base import Crop, VisualTokens


def made(sizes: list[tuple[int, int, int]]) -> VisualTokens:
    """Crops of (item, image, tokens), one row of cells each."""
    crops, item, column, crop, cell = [], [], [], [], []
    place: dict[int, int] = {}
    tiles: dict[tuple[int, int], int] = {}
    for number, (owner, image, size) in enumerate(sizes):
        crops.append(Crop(owner, image, tiles.setdefault((owner, image), 0), (1, size)))
        tiles[owner, image] += 1
        start = place.setdefault(owner, 1)
        item += [owner] * size
        column += range(start, start + size)
        crop += [number] * size
        cell += range(size)
        place[owner] += size + 1
    return VisualTokens(*(torch.tensor(v, dtype=torch.long) for v in (item, column, crop, cell)), tuple(crops))


# (item, image, tokens): two tiles of one picture, a second picture, and another item
LAYOUT = [(0, 0, 4), (0, 0, 4), (0, 1, 2), (1, 0, 6)]


def test_budget_per_crop_image_and_item() -> None:
    tokens = made(LAYOUT)
    scores = torch.tensor([4.0, 3, 2, 1, 9, 8, 7, 6, 5, 0, 1, 2, 3, 4, 5, 6])
    present = torch.ones(16, dtype=torch.bool)
    # half of 4, 4, 2, 6 -> 2, 2, 1, 3
    assert TopK(0.5)(scores, tokens, present).nonzero().flatten().tolist() == [0, 1, 4, 5, 8, 13, 14, 15]
    # half of 8, 2, 6 -> 4, 1, 3: the second tile has the best four
    assert TopK(0.5, per="image")(scores, tokens, present).nonzero().flatten().tolist() == [4, 5, 6, 7, 8, 13, 14, 15]
    # half of 10, 6 -> 5, 3
    assert TopK(0.5, per="item")(scores, tokens, present).nonzero().flatten().tolist() == [4, 5, 6, 7, 8, 13, 14, 15]
    # a fixed number; a group with fewer is left whole
    assert TopK(0.5, tokens=3)(scores, tokens, present).sum() == 3 + 3 + 2 + 3
    assert TopK(0.5, tokens=0)(scores, tokens, present).sum() == 0


@pytest.mark.parametrize(
    ("keep", "kept"), [(1.0, 576), (0.75, 432), (0.5, 288), (0.25, 144), (0.1, 58), (0.05, 29), (0.002, 1), (0.0, 0)]
)
def test_counts_of_the_papers_tables(keep: float, kept: int) -> None:
    """FasterVLM, table 1: 432, 288, 144, 58 and 29 of 576 tokens."""
    tokens = made([(0, 0, 576)])
    assert TopK(keep)(torch.rand(576), tokens, torch.ones(576, dtype=torch.bool)).sum() == kept


def test_share_of_what_is_still_there() -> None:
    """Behind another reducer the share is of the tokens that reach it, and nothing returns."""
    tokens = made([(0, 0, 8)])
    present = torch.tensor([True, False] * 4)
    kept = TopK(0.5)(torch.tensor([1.0, 9, 2, 9, 3, 9, 4, 9]), tokens, present) & present
    assert kept.nonzero().flatten().tolist() == [4, 6]


def test_equal_scores_go_to_the_earlier_place() -> None:
    """Significance [.01 .02 .30 / .20 .20 .20 / .05 .01 .01], 3 of 9: cells 2, 3, 4."""
    scores = torch.tensor([0.01, 0.02, 0.30, 0.20, 0.20, 0.20, 0.05, 0.01, 0.01])
    assert TopK(1 / 3)(scores, made([(0, 0, 9)]), torch.ones(9, dtype=torch.bool)).nonzero().flatten().tolist() == [2, 3, 4]


def test_threshold_for_all_or_for_each() -> None:
    tokens, present = made([(0, 0, 4)]), torch.ones(4, dtype=torch.bool)
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert Threshold(0.2)(scores, tokens, present).tolist() == [False, False, True, True]
    assert Threshold(torch.tensor([0.0, 0.5, 0.5, 0.0]))(scores, tokens, present).tolist() == [True, False, False, True]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    keep=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    per=st.sampled_from(["crop", "image", "item"]),
)
def test_top_k_equals_sorting(sizes: list[int], keep: float, seed: int, per: str) -> None:
    tokens = made([(i // 2, i % 2, size) for i, size in enumerate(sizes)])
    random = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 5, (len(tokens),), generator=random).float()  # many equal ones
    present = torch.rand(len(tokens), generator=random) < 0.7
    kept = TopK(keep, per=per)(scores, tokens, present) & present  # type: ignore[arg-type]
    group = groups(tokens, per)  # type: ignore[arg-type]
    for number in range(int(group.max()) + 1):
        own = [i for i in range(len(tokens)) if group[i] == number and present[i]]
        best = sorted(own, key=lambda i: (-scores[i], i))[: int(len(own) * keep + 0.5)]
        assert kept.nonzero().flatten().tolist().count(-1) == 0
        assert {i for i in own if kept[i]} == set(best)


def test_ranks() -> None:
    group = torch.tensor([0, 1, 0, 1, 0])
    present = torch.tensor([True, True, True, True, False])
    assert ranks(torch.tensor([1.0, 5, 2, 7, 99]), group, present).tolist() == [1, 1, 0, 0, 2]
