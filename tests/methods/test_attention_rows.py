"""Rows of attention without the map equal those of the map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from argus.methods.attention_rows import LISTENING, AttentionCall, attention_row_blocks, attention_rows, mean_attention, watch
from argus.model.anatomy import anatomy
from tests.methods.families import FAMILIES


def listen(model: Any, inputs: Any, layer: int, read: Any) -> tuple[list[Any], Tensor]:
    """What `read` makes of the calls of one decoder layer, and the logits."""
    seen: list[Any] = []
    listener = watch(anatomy(model).layers[layer].self_attn, lambda call: seen.append(read(call)))
    with torch.no_grad():
        logits = model(**inputs).logits
    listener.remove()
    return seen, logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_equal_eager_maps(family: str, attention: str) -> None:
    model, inputs = FAMILIES[family].model(attention), FAMILIES[family].inputs([1, 2], [5, 3])
    eager = FAMILIES[family].model("eager")
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True).attentions
        base = model(**inputs).logits
    rows = torch.tensor([[-1, 20], [-3, 30]]) % inputs["input_ids"].shape[1]
    for layer in range(3):
        (got,), logits = listen(model, inputs, layer, lambda call: attention_rows(call, rows))
        for item in range(2):
            torch.testing.assert_close(got[item], maps[layer][item][:, rows[item]], atol=1e-5, rtol=0)
        assert torch.equal(logits, base)  # listening changes nothing


def test_mean_over_many_rows(family: str) -> None:
    """Longer than a block of rows; weights choose and average."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([4], [40])
    eager = FAMILIES[family].model("eager")
    length = inputs["input_ids"].shape[1]
    with torch.no_grad():
        attention = eager(**inputs, output_attentions=True).attentions[1]
    weights = torch.rand(1, length, generator=torch.Generator().manual_seed(0)) * (torch.arange(length) % 3 > 0)
    (got,), _ = listen(model, inputs, 1, lambda call: mean_attention(call, weights))
    expected = torch.einsum("bhqk,bq->bhk", attention, weights) / weights.sum()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_rows_behind_a_cache(models: dict[str, Any]) -> None:
    """While decoding, the keys are those of the cache; the row sums to one."""
    model, inputs = models["llava"], FAMILIES["llava"].inputs([1], [5])
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    more = {"input_ids": torch.tensor([[7]]), "past_key_values": cache}
    (row,), _ = listen(model, more, 2, lambda call: attention_rows(call, torch.zeros(1, 1, dtype=torch.long)))
    assert row.shape[-1] == inputs["input_ids"].shape[1] + 1
    torch.testing.assert_close(row.sum(-1), torch.ones(1, 4, 1))


def test_masks_of_every_form() -> None:
    """None, padding, bool and additive masks that say the same give the same rows."""
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 6, 8, generator=random), torch.randn(2, 2, 6, 8, generator=random)
    real = torch.tensor([[True] * 6, [False, False, True, True, True, True]])
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    visible = (causal & real[:, None])[:, None]
    additive = torch.zeros(2, 1, 6, 6).masked_fill(~visible, torch.finfo(torch.float32).min)
    rows = torch.tensor([[2, 5], [3, 5]])
    got = [attention_rows(AttentionCall(query, key, mask, 0.5, True), rows) for mask in (real, real.long(), visible, additive)]
    for other in got[1:]:
        torch.testing.assert_close(got[0], other)
    plain = attention_rows(AttentionCall(query[:1], key[:1], None, 0.5, True), rows[:1])
    torch.testing.assert_close(plain, got[0][:1])
    assert not plain[0, :, 0, 3:].any()
    both_ways = attention_rows(AttentionCall(query[:1], key[:1], None, 0.5, False), rows[:1])
    assert (both_ways > 0).all()


def test_blocks_cover_all_rows() -> None:
    query = torch.randn(1, 2, 300, 4)
    call = AttentionCall(query, query, None, 0.5, True)
    blocks = list(attention_row_blocks(call))
    assert [(r.start, r.stop) for r, _ in blocks] == [(0, 128), (128, 256), (256, 300)]
    whole = attention_rows(call, torch.arange(300)[None])
    torch.testing.assert_close(torch.cat([b for _, b in blocks], 2), whole)


def test_several_listeners_and_the_config(models: dict[str, Any]) -> None:
    """Two listeners hear the same call; the config names the real kernel again when the module is done."""
    model, inputs = models["llava"], FAMILIES["llava"].inputs([1], [5])
    attention = anatomy(model).layers[0].self_attn
    heard: list[tuple[str, str]] = []
    a = watch(attention, lambda call: heard.append(("a", attention.config._attn_implementation)))
    b = watch(attention, lambda call: heard.append(("b", attention.config._attn_implementation)))
    hooks = len(attention._forward_pre_hooks)
    with torch.no_grad():
        model(**inputs)
        a.remove()
        assert attention.config._attn_implementation == "sdpa"
        model(**inputs)
    b.remove()
    assert heard == [("a", LISTENING), ("b", LISTENING), ("b", LISTENING)]
    assert len(attention._forward_pre_hooks) == hooks - 1
