"""Attention curves against full maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from argus.core.errors import UnsupportedError
from argus.methods.reduction.diagnostics import attention_curves, concentration, spearman
from argus.model.anatomy import anatomy
from tests.methods.families import FAMILIES


def test_curves_equal_full_maps(plain: str) -> None:
    model, eager, inputs = FAMILIES[plain].model(), FAMILIES[plain].model("eager"), FAMILIES[plain].inputs([1], [7])
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True).attentions
        base = model(**inputs).logits
        curves = attention_curves(model, inputs)
        assert torch.equal(model(**inputs).logits, base)
    columns = anatomy(model).visual_tokens(inputs).column.tolist()
    start, count, length = columns[0], len(columns), inputs["input_ids"].shape[1]
    behind = length - columns[-1] - 1
    for layer, attention in enumerate(maps):
        mean = attention[0].mean(0)
        for j, column in enumerate(columns):
            image = sum(mean[row, column] for row in columns)
            text = sum(mean[row, column] for row in range(start + count, length))
            expected = (image / (count - j), text / behind, (image + text) / (count - j + behind), mean[-1, column])
            got = [getattr(curves, name)[layer, j] for name in ("image", "text", "full", "last")]
            torch.testing.assert_close(torch.stack(got), torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["internvl", "llava_next", "llava_onevision"])
def test_pictures_in_tiles_have_no_single_curve(name: str) -> None:
    """Tokens of several crops stand in no one order over the picture."""
    with pytest.raises(UnsupportedError, match="of one picture in one prompt"):
        attention_curves(FAMILIES[name].model(), FAMILIES[name].inputs([1], [7]))


def test_encoder_curve_is_the_cls_row() -> None:
    model, inputs = FAMILIES["argus"].model(), FAMILIES["argus"].inputs([1], [7])
    with torch.no_grad():
        row = model.model.vision_tower(inputs["pixel_values"], cls_attention=True).cls_attention.mean(1)[0]
    torch.testing.assert_close(attention_curves(model, inputs).encoder, row)


def test_shift_and_dispersion_of_known_curves(models: dict[str, Any]) -> None:
    curves = attention_curves(models["llava"], FAMILIES["llava"].inputs([1], [7]))
    correlation = curves.correlation()
    assert correlation["last"].shape == (3,)
    assert correlation["encoder"].shape == ()
    for shares in curves.dispersion().values():
        assert (shares.diff() >= -1e-6).all()
        torch.testing.assert_close(shares[-1], torch.tensor(1.0))
    # rises with the index -> 1, falls -> -1, constant -> 0
    known = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1], [2, 2, 2, 2]])
    torch.testing.assert_close(spearman(known), torch.tensor([1.0, -1.0, 0.0], dtype=torch.double))
    torch.testing.assert_close(concentration(torch.tensor([1.0, 6, 3])), torch.tensor([0.6, 0.9, 1.0]))


@given(st.lists(st.integers(0, 6), min_size=3, max_size=20).filter(lambda v: len(set(v)) > 1))
def test_spearman_equals_scipy(values: list[int]) -> None:
    expected = spearmanr(values, range(len(values))).statistic
    assert float(spearman(torch.tensor(values, dtype=torch.float))) == pytest.approx(expected)


def test_one_picture_with_text_behind(models: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="not of 2"):
        attention_curves(models["llava"], FAMILIES["llava"].inputs([2], [7]))
    inputs = FAMILIES["llava"].inputs([1], [0])
    cut = {**inputs, "input_ids": inputs["input_ids"][:, :-1], "attention_mask": inputs["attention_mask"][:, :-1]}
    with pytest.raises(UnsupportedError, match="no text behind"):
        attention_curves(models["llava"], cut)
