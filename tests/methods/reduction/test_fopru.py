"""FoPru keeps the best tokens or the best whole rows, in their original order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import argus
from argus.methods.reduction.selectors import Rows, TopK
from argus.model.anatomy import anatomy
from argus.model.anatomy.base import Crop, VisualTokens
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, llava, llava_inputs, qwen, qwen_inputs
from tests.methods.reduction.test_fastervlm import cls_rows


def grids(*shapes: tuple[int, int]) -> VisualTokens:
    """Crops of one prompt, one behind the other."""
    sizes = [high * wide for high, wide in shapes]
    crop = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    cell = torch.cat([torch.arange(n) for n in sizes])
    crops = tuple(Crop(0, 0, tile, shape) for tile, shape in enumerate(shapes))
    return VisualTokens(torch.zeros_like(crop), torch.arange(len(crop)), crop, cell, crops)


def kept_cells(select: Any, scores: Tensor, tokens: VisualTokens, present: Tensor | None = None) -> list[int]:
    present = torch.ones(len(tokens), dtype=torch.bool) if present is None else present
    return (select(scores, tokens, present) & present).nonzero().flatten().tolist()


def test_rank_and_row_by_hand() -> None:
    """Significance on a 3 x 3 grid, a third kept. Rank: .30 and the first two of .20. Row sums .33, .60, .07: the second."""
    scores, tokens = torch.tensor([0.01, 0.02, 0.30, 0.20, 0.20, 0.20, 0.05, 0.01, 0.01]), grids((3, 3))
    assert kept_cells(TopK(1 / 3, least=1), scores, tokens) == [2, 3, 4]
    assert kept_cells(Rows(1 / 3), scores, tokens) == [3, 4, 5]


def test_row_counts() -> None:
    """Of 24 rows of 24: 6 at a quarter, 2 at a tenth (not 58 tokens), 1 at 0.2 %, none at 0, all at 1."""
    scores, tokens = torch.rand(576, generator=torch.Generator().manual_seed(0)), grids((24, 24))
    counts = {keep: len(kept_cells(Rows(keep), scores, tokens)) for keep in (1.0, 0.25, 0.1, 0.002, 0.0)}
    assert counts == {1.0: 576, 0.25: 144, 0.1: 48, 0.002: 24, 0.0: 0}
    assert len(kept_cells(Rows(0.1, exact=True), scores, tokens)) == 58
    assert len(kept_cells(TopK(0.0001, least=1), scores, tokens)) == 1


@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    keep=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_rows_are_complete_and_the_best(shapes: list[tuple[int, int]], keep: float, seed: int) -> None:
    """Against sorting each crop's row means by hand; crops are independent and need not be square."""
    tokens = grids(*shapes)
    scores = torch.rand(len(tokens), generator=torch.Generator().manual_seed(seed))
    expected, exact, start = [], [], 0
    for high, wide in shapes:
        table = scores[start : start + high * wide].view(high, wide)
        best = sorted(range(high), key=lambda r: -table[r].double().mean())
        count = max(1, int(high * keep + 0.5))
        expected += [start + r * wide + c for r in sorted(best[:count]) for c in range(wide)]
        budget = max(1, int(high * wide * keep + 0.5))
        by_rows = [start + r * wide + c for r in best for c in sorted(range(wide), key=lambda c: -table[r, c])]
        exact += sorted(by_rows[:budget])
        start += high * wide
    assert kept_cells(Rows(keep), scores, tokens) == expected
    assert kept_cells(Rows(keep, exact=True), scores, tokens) == exact


def test_rows_of_what_is_still_there() -> None:
    """Behind another reducer: a row's mean is over its tokens that are left, and an empty row is no row."""
    tokens = grids((4, 2))
    scores = torch.tensor([9.0, 9, 1, 0, 3, 8, 2, 2])
    present = torch.tensor([False, False, True, True, True, False, True, True])
    # row 0 is gone; means 0.5, 3, 2; round(3 * 0.34) = 1 row
    assert kept_cells(Rows(0.34), scores, tokens, present) == [4]
    assert kept_cells(Rows(0.67), scores, tokens, present) == [4, 6, 7]


@pytest.mark.parametrize("strategy", ["rank", "row"])
def test_everything_kept_is_the_base_model(family: str, strategy: str) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "fopru", keep=1.0, strategy=strategy):
            assert torch.equal(model(**inputs).logits, base)


@pytest.mark.parametrize("keep", [0.5, 0.25, 0.1])
def test_rank_is_fastervlm(family: str, keep: float) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    kept = []
    for name in ("fastervlm", "fopru"):
        with argus.attach(model, name, keep=keep) as attachment, torch.no_grad():
            model(**inputs)
        kept.append([k.indices.tolist() for k in attachment.kept])
    assert kept[0] == kept[1]


def test_rows_equal_full_attention_maps() -> None:
    """Row means of the CLS row of the eager map; 6 x 6 grid, round(0.4 * 6) = 2 rows."""
    model, eager, inputs = llava(), llava("eager"), llava_inputs([1, 2], [4, 6])
    means = cls_rows(eager, inputs["pixel_values"]).view(3, 6, 6).mean(-1)
    with argus.attach(model, "fopru", keep=0.4, strategy="row") as attachment, torch.no_grad():
        model(**inputs)
    for kept, mean in zip(attachment.kept, means, strict=True):
        rows = sorted(mean.argsort(descending=True)[:2].tolist())
        assert kept.indices.tolist() == [6 * r + c for r in rows for c in range(6)]
    assert [c.per_crop for c in attachment.counts] == [(12,), (12, 12)]


def test_rows_use_each_pictures_own_grid() -> None:
    """Qwen2.5-VL: 4 x 6 and 2 x 4 tokens behind the 2 x 2 merger; half of the rows are 12 and 4 tokens."""
    model, inputs = qwen(), qwen_inputs([2], [4])
    with argus.attach(model, "fopru", keep=0.5, strategy="row") as attachment, torch.no_grad():
        model(**inputs)
    for kept, rows in zip(attachment.kept, (2, 1), strict=True):
        whole = kept.mask().all(-1)
        assert torch.equal(kept.mask(), whole[:, None].expand(kept.grid))
        assert int(whole.sum()) == rows


def test_order_of_the_choice_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Survivors are reordered: they enter the language model in raster order with rising positions, whatever chose them."""
    model, inputs = llava(), llava_inputs([1], [4])
    with argus.attach(model, "fopru", keep=0.3, strategy="row") as attachment, torch.no_grad():
        logits = model(**inputs).logits
        gone = columns_gone(attachment, inputs, model)
    indices = attachment.kept[0].indices
    assert bool((indices.diff() > 0).all())
    expected, columns = logits_with(model, inputs, gone, consecutive={0})
    assert columns == sorted(columns)
    torch.testing.assert_close(logits[0, columns], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["rank", "row"])
def test_in_llm_reducers_stack_behind(strategy: str) -> None:
    """Rows before the language model, FastV inside it: half of the tokens that FoPru left."""
    model, inputs = llava(), llava_inputs([1], [5])
    with argus.attach(model, "fopru", keep=0.5, strategy=strategy) as outer, argus.attach(model, "fastv", keep=0.5) as inner:
        model(**inputs)
    assert (outer.counts[0].kept, inner.counts[0].before, inner.counts[0].kept) == (18, 18, 9)
    assert set(inner.kept[0].indices.tolist()) < set(outer.kept[0].indices.tolist())


def test_prefill_shrinks_with_the_share() -> None:
    """What the decoder computes on: text + whole rows; 6, 3 and round(0.2 * 6) = 1 of 6."""
    model, inputs = llava(), llava_inputs([1], [4])
    text, widths = inputs["input_ids"].shape[1] - 36, []
    hook = (
        anatomy(model)
        .decoder_attention(0)
        .register_forward_pre_hook(lambda m, args, kwargs: widths.append(kwargs["hidden_states"].shape[1]), with_kwargs=True)
    )
    with torch.no_grad():
        for keep in (1.0, 0.5, 0.2):
            with argus.attach(model, "fopru", keep=keep, strategy="row"):
                model(**inputs)
    hook.remove()
    assert widths == [text + 36, text + 18, text + 6]
