"""Visual tokens above thresholds stay; thresholds depend on layer, picture and question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import argus
from argus.core.errors import RecipeError, UnsupportedError
from argus.methods.attach import Attachment
from argus.methods.learned import save_parts
from argus.methods.reduction.atp_llava import (
    AtpLlava,
    AtpLlavaOptions,
    over_maximum,
    pooled,
    redundancy_score,
    spatial_score,
)
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, llava, llava_inputs, single
from tests.methods.reduction.test_fopru import grids

SMALL = {"layers": (1, 2), "pool": 4, "hidden": 8}


def at(parts: Any, redundancy: float | None = None, spatial: float | None = None) -> None:
    """Makes thresholds those given, the same for every picture, or lets them depend on it, around 0.3 and 0.5."""
    with torch.no_grad():
        for module in parts:
            for head, value, middle in ((module.redundancy, redundancy, 0.3), (module.spatial, spatial, 0.5)):
                head.weight.mul_(3 if value is None else 0)
                head.bias.fill_(torch.logit(torch.tensor(middle if value is None else value)))


def thresholds(model: Any, file: Path, redundancy: float | None = None, spatial: float | None = None, **options: Any) -> str:
    """A file of such thresholds."""
    torch.manual_seed(1)
    parts = AtpLlava(AtpLlavaOptions.model_validate({**SMALL, **options})).make(anatomy(model))
    at(parts, redundancy, spatial)
    save_parts(parts, file)
    return str(file)


def test_scores_by_hand() -> None:
    """2 x 2 tokens. S_red is .2 for all; stride 2 chooses token 0 with 1 - 3 / 4 = .25."""
    tokens = grids((2, 2))
    worth = redundancy_score(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.3, 0.2, 0.1, 0.0]))
    place = spatial_score(tokens, (2,), 3.0)
    torch.testing.assert_close(worth, torch.full((4,), 0.2))
    assert place.tolist() == [0.25, *[float("-inf")] * 3]

    def kept(theta_r: float, theta_s: float) -> list[int]:
        return ((worth > theta_r) | (place > theta_s)).nonzero().flatten().tolist()

    assert kept(0.15, 0.3) == [0, 1, 2, 3]
    assert kept(0.25, 0.2) == [0]
    assert kept(0.25, 0.3) == []


def test_grids_by_hand() -> None:
    """Every second row and column of 24 x 24 are 144 tokens; a sparser grid is worth more; both together, the greater counts."""
    tokens = grids((24, 24), (3, 5))
    dense, sparse, both = (spatial_score(tokens, strides, 3.0) for strides in ((2,), (4,), (2, 4)))
    assert [(s[:576] > -1).sum().item() for s in (dense, sparse, both)] == [144, 36, 144]
    assert set(sparse[:576].tolist()) == {0.8125, float("-inf")}
    assert both[:576].unique().tolist() == [float("-inf"), 0.25, 0.8125]
    assert (dense[576:] > -1).nonzero().flatten().tolist() == [0, 2, 4, 10, 12, 14]
    assert not (spatial_score(tokens, (), 3.0) > -1).any()


def test_pooling_keeps_places() -> None:
    """Crops of different sizes, a token missing: means over cells, zero where there is none."""
    tokens = grids((4, 4), (2, 3))
    scores = torch.arange(22.0).repeat(2, 1)
    maps = pooled(scores, tokens, 2)
    assert maps.shape == (2, 2, 2, 2)
    assert maps[0, 0].flatten().tolist() == [2.5, 4.5, 10.5, 12.5]  # quarters of 0..15
    assert maps[1, 1].flatten().tolist() == [16.5, 17.5, 19.5, 20.5]  # columns 0-1 and 1-2 of each row
    torch.testing.assert_close(over_maximum(scores, tokens)[0], torch.cat([torch.arange(16.0) / 15, torch.arange(16.0, 22) / 21]))


@pytest.mark.parametrize("options", [{"redundancy": 0.0}, {"keep": 1.0}])
def test_open_thresholds_are_the_base_model(family: str, tmp_path: Path, options: dict[str, Any]) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    file = thresholds(model, tmp_path / "a.safetensors", options.get("redundancy"))
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "atp_llava", weights=file, **SMALL, keep=options.get("keep", 0.25)):
            assert torch.equal(model(**inputs).logits, base)


@pytest.mark.parametrize("strides", [(2,), (3,), (4, 2)])
def test_only_the_grid(plain: str, tmp_path: Path, strides: tuple[int, ...]) -> None:
    """Shut for what tokens are worth, open for where they lie: exactly the grid stays."""
    model, inputs = FAMILIES[plain].model(), FAMILIES[plain].inputs([1, 2], [4, 6])
    file = thresholds(model, tmp_path / "a.safetensors", 1.0, 0.0)
    with torch.no_grad(), argus.attach(model, "atp_llava", weights=file, strides=strides, **SMALL) as attachment:
        model(**inputs)
    for kept in attachment.kept:
        cells = torch.arange(kept.grid[0] * kept.grid[1])
        row, column = cells // kept.grid[1], cells % kept.grid[1]
        chosen = [cells[(row % s == 0) & (column % s == 0)] for s in strides]
        assert kept.indices.tolist() == torch.cat(chosen).unique().tolist()


def test_at_least_one_token_stays(plain: str, tmp_path: Path) -> None:
    """All thresholds shut: the token that comes nearest to them."""
    model, inputs = FAMILIES[plain].model(), FAMILIES[plain].inputs([1, 2], [4, 6])
    file = thresholds(model, tmp_path / "a.safetensors", 1.0, 1.0)
    with torch.no_grad(), argus.attach(model, "atp_llava", weights=file, **SMALL) as attachment:
        model(**inputs)
    assert [len(kept.indices) for kept in attachment.kept] == [1] * 6


def test_scores_and_thresholds_equal_the_formulas_on_full_maps(plain: str, tmp_path: Path) -> None:
    """Brute force, item by item and crop by crop, from the attention maps that the eager kernel returns."""
    model, eager = FAMILIES[plain].model(), FAMILIES[plain].model("eager")
    inputs = FAMILIES[plain].inputs([1, 2], [6, 3])
    file = thresholds(model, tmp_path / "a.safetensors")
    with torch.no_grad(), argus.attach(model, "atp_llava", weights=file, **SMALL) as attachment:
        model(**inputs)
        maps = eager(**inputs, output_attentions=True).attentions[0].mean(1)  # (B, S, S) of the layer before the first module
    module = attachment.reducer.parts[0]  # type: ignore[attr-defined]
    tokens, real = anatomy(model).visual_tokens(inputs), inputs["attention_mask"].bool()
    visual = tokens.mask(*real.shape)
    entries = [kept for kept in attachment.kept if kept.layer == 1]
    for number, (crop, kept) in enumerate(zip(tokens.crops, entries, strict=True)):
        item, own = crop.item, tokens.column[tokens.crop == number]
        shown = visual[item].nonzero().flatten()
        text = [c for c in range(int(shown[0]), real.shape[1]) if real[item, c] and not visual[item, c]]
        scores = torch.stack([maps[item, rows][:, own].mean(0) for rows in (shown, text)])  # (2, N)
        even = (scores / scores.amax(1, keepdim=True)).view(2, *crop.grid)
        z = module.mix(torch.nn.functional.adaptive_avg_pool2d(even, 4).flatten())
        theta = [head(z).sigmoid() for head in (module.redundancy, module.spatial)]
        worth = scores.mean(0) / scores.mean(0).max()
        row, column = (torch.arange(len(own)) // crop.grid[1], torch.arange(len(own)) % crop.grid[1])
        placed = (row % 2 == 0) & (column % 2 == 0) & bool(theta[1] < 0.25)
        assert kept.indices.tolist() == ((worth > theta[0]) | placed).nonzero().flatten().tolist()
    assert len({len(kept.indices) for kept in entries}) > 1


def test_what_stays_is_nested_in_place_and_exact(plain: str, tmp_path: Path) -> None:
    """Counts fall with depth; logits equal the sequence cut by hand, with the positions of the survivors kept."""
    model, inputs = FAMILIES[plain].model(), FAMILIES[plain].inputs([1], [6])
    file = thresholds(model, tmp_path / "a.safetensors", 0.3, 0.5)
    with torch.no_grad(), argus.attach(model, "atp_llava", weights=file, **SMALL) as attachment:
        logits = model(**inputs).logits[0]
        gone = columns_gone(attachment, inputs, model)
    first, second = attachment.kept
    assert 0 < len(second.indices) < len(first.indices) < first.total
    assert set(second.indices.tolist()) < set(first.indices.tolist())
    expected, columns = logits_with(model, inputs, gone)
    torch.testing.assert_close(logits[columns], expected, atol=2e-5, rtol=1e-4)


def test_items_of_a_batch_keep_what_they_would_alone(family: str, tmp_path: Path) -> None:
    model, pictures = FAMILIES[family].model(), [1, 2, 1]
    inputs = FAMILIES[family].inputs(pictures, [4, 9, 6])
    file = thresholds(model, tmp_path / "a.safetensors")
    with torch.no_grad(), argus.attach(model, "atp_llava", weights=file, **SMALL) as attachment:
        logits = model(**inputs).logits
        together = {(k.layer, k.item, k.image, k.tile): k.indices.tolist() for k in attachment.kept}
        for item in range(3):
            one = single(inputs, item, family, pictures)
            torch.testing.assert_close(logits[item, -1], model(**one).logits[0, -1], atol=2e-5, rtol=1e-4)
            assert all(k.indices.tolist() == together[k.layer, item, k.image, k.tile] for k in attachment.kept)


@pytest.mark.parametrize("family", ["argus", "llava", "qwen2_vl", "qwen2_5_vl"])  # tiles have a threshold of their own
def test_hard_is_the_limit_of_soft(family: str) -> None:
    """At T = 1e6 the soft masks of both modules give the text the logits of dropping, and count the same tokens."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [6, 3])
    text = inputs["attention_mask"].bool() & ~anatomy(model).visual_mask(inputs["input_ids"])
    reducer = AtpLlava(AtpLlavaOptions.model_validate({**SMALL, "temperature": 1e6}))
    torch.manual_seed(1)
    at(reducer.untrained(anatomy(model)))
    logits, counts = list[Tensor](), list[list[float]]()
    for soft in (True, False):
        reducer.parts.train(soft)  # type: ignore[union-attr]
        with torch.no_grad(), Attachment(model, "atp_llava", reducer) as attachment:
            logits.append(model(**inputs, use_cache=False).logits[text])
        counts.append(torch.cat(list(reducer.counts.values())).tolist())
        dropped = [count.kept < count.before for count in attachment.counts]
        assert any(dropped) != soft
    torch.testing.assert_close(*logits, atol=1e-3, rtol=1e-3)
    assert counts[0] == pytest.approx(counts[1], abs=1e-2)


def test_modules_stand_at_the_model_s_depth() -> None:
    """4, 14, 24 of 32 layers are 1, 3, 5 of six: after 3/4, 2 5/8 and 4 1/2 layers."""
    made = AtpLlava(AtpLlavaOptions())
    assert [tuple(made.layers(depth)) for depth in (32, 6, 28)] == [(4, 14, 24), (1, 3, 5), (4, 12, 21)]
    assert tuple(AtpLlava(AtpLlavaOptions(keep=1.0)).layers(32)) == ()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UnsupportedError, "have to be trained"),
        ({"strides": (1,)}, RecipeError, "2 or more"),
        ({"layers": (2, 1)}, RecipeError, "ascending"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        argus.attach(llava(), "atp_llava", **options)


@pytest.mark.parametrize("layers", [(0,), (3,)])
def test_layers_that_are_not_there_are_refused(tmp_path: Path, layers: tuple[int, ...]) -> None:
    model = llava()
    file = thresholds(model, tmp_path / "a.safetensors", layers=layers)
    with pytest.raises(UnsupportedError, match="layer"):
        argus.attach(model, "atp_llava", **{**SMALL, "layers": layers}, weights=file)


def test_half_precision(tmp_path: Path) -> None:
    model, inputs = llava().to(torch.bfloat16), llava_inputs([1, 1], [4, 6])
    file = thresholds(model, tmp_path / "a.safetensors", 0.3, 0.5)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    with torch.no_grad(), argus.attach(model, "atp_llava", weights=file, **SMALL) as attachment:
        assert model(**inputs).logits.isfinite().all()
    assert all(0 < count.kept < count.total for count in attachment.counts)
