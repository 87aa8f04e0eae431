"""What every reducer promises on every family: exact no-op, exact detaching, and as many tokens as were asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import argus
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, IMAGE, cast, llava_inputs, qwen, qwen2
from tests.methods.reducers import IN_LLM, PLAIN, renumbered

pytestmark = pytest.mark.filterwarnings("ignore")

DTYPES = [torch.float32, torch.bfloat16]


# -- the no-op state


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keep_everything_is_bit_identical(family: str, reducer: str, dtype: torch.dtype) -> None:
    model = FAMILIES[family].model().to(dtype)
    inputs = cast(FAMILIES[family].inputs([1, 2], [4, 7]), dtype)
    with torch.no_grad():
        base = model(**inputs).logits
    sequence = model.generate(**inputs, max_new_tokens=4, do_sample=False, **PLAIN)
    with argus.attach(model, reducer, keep=1.0), torch.no_grad():
        assert torch.equal(model(**inputs).logits, base)
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False, **PLAIN), sequence)
    if reducer == "fastervlm":
        with argus.attach(model, reducer, tokens=10_000), torch.no_grad():
            assert torch.equal(model(**inputs).logits, base)


def test_text_alone_passes_untouched(models: dict[str, Any], reducer: str) -> None:
    model, ids = models["llava"], torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        base = model(input_ids=ids).logits
        with argus.attach(model, reducer, keep=0.1) as attachment:
            assert torch.equal(model(input_ids=ids).logits, base)
            assert attachment.kept == []


def test_detach_restores_the_model(models: dict[str, Any], family: str, reducer: str) -> None:
    model, inputs = models[family], FAMILIES[family].inputs([1], [4])
    model(**inputs, output_hidden_states=True)  # transformers installs hooks of its own at the first call
    before = _hooks(model), model.config._attn_implementation, model.model.language_model.config._attn_implementation
    with torch.no_grad():
        base = model(**inputs).logits
        attachment = argus.attach(model, reducer, keep=0.3)
        changed = model(**inputs).logits
        kept = attachment.kept
        attachment.detach()
        attachment.detach()  # once more does nothing
        assert not torch.equal(changed, base)
        assert torch.equal(model(**inputs).logits, base)
    after = _hooks(model), model.config._attn_implementation, model.model.language_model.config._attn_implementation
    assert before == after
    assert [k.indices.tolist() for k in attachment.kept] == [k.indices.tolist() for k in kept]


def test_a_model_that_fails_is_left_clean(models: dict[str, Any]) -> None:
    model, inputs = models["llava"], llava_inputs([1], [4])
    with argus.attach(model, "fastv", keep=0.5):
        layer = model.model.language_model.layers[1]
        hooks = _hooks(model)
        broken = layer.mlp.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(**inputs)
        broken.remove()
        assert model.model.language_model.config._attn_implementation == "sdpa"
        assert _hooks(model) == hooks
        model(**inputs)


def _hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# -- what is kept


def test_counts_and_raster_order(models: dict[str, Any], family: str, reducer: str) -> None:
    model, inputs = models[family], FAMILIES[family].inputs([1, 2], [4, 7])
    tokens = anatomy(model).visual_tokens(inputs)
    sizes = [tokens.crop[tokens.item == item].unique(return_counts=True)[1].tolist() for item in (0, 1)]
    with argus.attach(model, reducer, keep=0.3) as attachment, torch.no_grad():
        model(**inputs)
    assert [(k.item, k.image, k.tile, k.grid) for k in attachment.kept] == [
        (c.item, c.image, c.tile, c.grid) for c in tokens.crops
    ]
    for kept in attachment.kept:
        indices = kept.indices.tolist()
        assert indices == sorted(set(indices))
        assert kept.mask().shape == kept.grid
        assert kept.mask().flatten().nonzero().flatten().tolist() == indices
    for count, crops in zip(attachment.counts, sizes, strict=True):
        if reducer in IN_LLM:  # one budget for the whole prompt
            assert count.kept == int(sum(crops) * 0.3 + 0.5)
        else:  # one per crop
            assert count.per_crop == tuple(int(size * 0.3 + 0.5) for size in crops)
        assert count.total == sum(crops)


def test_keep_nothing_leaves_the_text(models: dict[str, Any], family: str, reducer: str) -> None:
    model, inputs = models[family], FAMILIES[family].inputs([1], [4])
    with argus.attach(model, reducer, keep=0.0) as attachment, torch.no_grad():
        logits = model(**inputs).logits
    assert attachment.counts[0].kept == 0
    gone = columns_gone(attachment, inputs, model)
    expected, columns = logits_with(model, inputs, gone, consecutive=renumbered(reducer))
    torch.testing.assert_close(logits[0, columns], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [qwen, qwen2])
def test_videos_and_pictures_in_one_prompt(make: Any, reducer: str) -> None:
    """A video of two time steps, then a picture: three crops, encoded in another order than the prompt's."""
    model, random = make(), torch.Generator().manual_seed(0)
    ids = torch.tensor([[1, 58, *[61] * 16, 59, 58, *[IMAGE] * 6, 59, 9, 8, 7]])
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == IMAGE).int() + 2 * (ids == 61).int(),
        "pixel_values": torch.randn(24, 96, generator=random),
        "image_grid_thw": torch.tensor([[1, 4, 6]]),
        "pixel_values_videos": torch.randn(64, 96, generator=random),
        "video_grid_thw": torch.tensor([[2, 4, 8]]),
    }
    with argus.attach(model, reducer, keep=0.5) as attachment, torch.no_grad():
        model(**inputs)
        model.generate(**inputs, max_new_tokens=2, do_sample=False, **PLAIN)
    assert [(k.image, k.tile, k.grid) for k in attachment.kept] == [(0, 0, (2, 4)), (0, 1, (2, 4)), (1, 0, (2, 3))]
    assert attachment.counts[0].kept == 11
    if reducer not in IN_LLM:
        assert attachment.counts[0].per_crop == (4, 4, 3)
