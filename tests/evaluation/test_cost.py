"""Costs are read from real shapes, so they can be computed on paper."""

from __future__ import annotations

import time

import pytest
import torch

from argus.core.registry import build
from argus.evaluation.cost import _LiveBytes, measure
from argus.evaluation.local import LocalModel

LAYERS, D, KV, M = 2, 32, 16, 48  # width, key-value width (2 of 4 heads), MLP width of the tiny model
VISUAL = 16


@pytest.fixture
def cost(model, processor, questions):
    return measure(LocalModel(model, processor), questions[0], decode=4)


@pytest.fixture
def length(processor, questions):
    text = processor.apply_chat_template(questions[0].sample.chat(), tokenize=False, add_generation_prompt=True)
    return processor(text=[text], images=questions[0].images, return_tensors="pt").input_ids.shape[1]


def layer_flops(s: int, d: int, kv: int, m: int) -> int:
    """2 FLOPs per multiply-accumulate of q and o, k and v, scores and values, gate, up and down."""
    return 2 * (2 * s * d * d + 2 * s * d * kv + 2 * s * s * d + 3 * s * d * m)


def test_prefill_flops_equal_the_closed_form(cost, length):
    assert cost.flops["decoder"] == LAYERS * layer_flops(length, D, KV, M)
    # With as many key-value heads as heads it is twice the multiply-accumulates of the FasterVLM formula.
    assert layer_flops(length, D, D, M) == 2 * (4 * length * D * D + 2 * length**2 * D + 3 * length * D * M)


def test_flops_of_encoder_and_rest(cost, model, length):
    tokens, width, mlp, patches = 17, 24, 32, 16
    # CLIP layers (biases are free): q, k, v, o, two MLP products; the patch convolution 8 x 8 x 3 -> 24.
    encoder = 2 * 2 * (4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * mlp)
    assert cost.flops["vision"] == encoder + 2 * patches * (8 * 8 * 3) * width
    connector = 2 * patches * (width * D + D * D)
    assert cost.flops["rest"] == connector + 2 * D * model.config.text_config.vocab_size


def test_cache_bytes_from_shapes(cost, length):
    assert cost.kv_bytes == LAYERS * 2 * length * KV * 4  # keys and values, float32


def test_visual_tokens_and_times(cost):
    assert cost.answer_entries == [1.0] * LAYERS
    assert cost.visual_tokens == [VISUAL] * LAYERS
    assert 0 < cost.ttft_ms < 10_000
    assert cost.decode_tokens_per_s > 0


def test_the_encoders_time_and_the_rest_are_told_apart(model, processor, questions):
    """An encoder that waits 50 ms and a decoder that waits 200 ms."""
    tower, layer = model.model.vision_tower, model.get_decoder().layers[0]
    waits = [(next(tower.children()), 0.05), (layer, 0.2)]
    handles = [part.register_forward_pre_hook(lambda *_, s=seconds: time.sleep(s)) for part, seconds in waits]
    try:
        found = build("metric", "ttft_ms").read(measure(LocalModel(model, processor), questions[0], decode=1))
    finally:
        for handle in handles:
            handle.remove()
    assert found["all"] == pytest.approx(found["vision"] + found["prefill"])
    assert 50 <= found["vision"] < 200 <= found["prefill"]
    assert not tower._forward_hooks  # nothing is left behind


def test_tokens_dropped_on_the_way_are_not_paid_for(model, processor, questions, length):
    """A hook that drops 6 visual tokens in front of layer 1, as reductions do."""

    def drop(layer, args, kwargs):
        hidden = args[0]
        if hidden.shape[1] < 10:
            return args, kwargs
        kept = torch.cat([torch.arange(4), torch.arange(10, hidden.shape[1])])
        kwargs["position_embeddings"] = tuple(p[:, kept] for p in kwargs["position_embeddings"])
        kwargs["attention_mask"] = None
        return (hidden[:, kept],), kwargs

    handle = model.get_decoder().layers[1].register_forward_pre_hook(drop, with_kwargs=True)
    asked = LocalModel(model, processor)
    try:
        cost = measure(asked, questions[0], decode=1)
    finally:
        handle.remove()
    assert cost.visual_tokens == [VISUAL, VISUAL - 6]
    assert build("metric", "layer_tokens").read(cost) == {"all": VISUAL - 3}
    assert cost.flops["decoder"] == layer_flops(length, D, KV, M) + layer_flops(length - 6, D, KV, M)
    assert cost.kv_bytes == 2 * (length + length - 6) * KV * 4


def test_memory_counts_what_lives_at_once():
    a = torch.ones(250_000)  # 1 MB, there before
    with _LiveBytes() as live:
        b = a * 2  # 1 MB
        c = b + 1  # 2 MB
        del b  # 1 MB
        c.add_(1)  # in place
        d = c.view(500, 500)  # no copy
        e = d @ d  # 2 MB
        del c, d, e
    assert live.peak == 2_000_000
    assert live.now == 0
