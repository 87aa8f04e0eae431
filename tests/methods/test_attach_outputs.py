"""What else a model does goes on with a reducer attached: training, adapters, other kernels, hidden states, fewer operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import argus
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone
from tests.methods.families import FAMILIES, llava, llava_inputs, qwen, qwen_inputs
from tests.methods.reducers import PLAIN

pytestmark = pytest.mark.filterwarnings("ignore")


# -- what a call gives


def test_hidden_states_stay_aligned(models: dict[str, Any], family: str) -> None:
    model, inputs = models[family], FAMILIES[family].inputs([1], [5])
    with argus.attach(model, "fastv", keep=0.5, layer=1) as attachment, torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
        gone = sorted(columns_gone(attachment, inputs, model)[1])
    assert all(s.shape[1] == inputs["input_ids"].shape[1] for s in states)
    assert states[1][0, gone].any()
    assert not states[2][0, gone].any()


def test_logits_to_keep(models: dict[str, Any], family: str, reducer: str) -> None:
    model, inputs = models[family], FAMILIES[family].inputs([1, 2], [5, 3])
    with argus.attach(model, reducer, keep=0.5), torch.no_grad():
        torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, model(**inputs).logits[:, -2:])


def test_qwen_keeps_grid_positions() -> None:
    """mRoPE models keep row and column of every survivor, whatever `positions` says."""
    model, inputs = qwen(), qwen_inputs([1], [5])
    results = []
    for positions in ("consecutive", "original"):
        with argus.attach(model, "fastervlm", keep=0.5, positions=positions), torch.no_grad():
            results.append(model(**inputs).logits)
    assert torch.equal(*results)


def test_prefill_flops_match_the_formula() -> None:
    """Per layer 2 (2 S D^2 + 2 S D D_kv + 3 S D m) for products with weights and 4 S^2 D for attention, S = text + T."""
    from torch.utils.flop_counter import FlopCounterMode

    model, inputs = llava("eager"), llava_inputs([1], [6])  # the counter knows plain products on every machine
    decoder, text = model.model.language_model, inputs["input_ids"].shape[1] - 36
    counted = []
    with torch.no_grad():
        for keep in (1.0, 0.25):
            with argus.attach(model, "fastervlm", keep=keep), FlopCounterMode(display=False) as flops:
                model(**inputs, logits_to_keep=1)
            counts = flops.get_flop_counts()
            counted.append(sum(v for k, v in counts.items() if k.endswith("language_model") for v in v.values()))
    width, kv, inner = decoder.config.hidden_size, 16, decoder.config.intermediate_size
    for total, visual in zip(counted, (36, 9), strict=True):
        s = text + visual
        assert total == 3 * (2 * (2 * s * width**2 + 2 * s * width * kv + 3 * s * width * inner) + 4 * s * s * width)


# -- training


def test_gradients_flow(family: str, reducer: str) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    labels = inputs["input_ids"].masked_fill(anatomy(model).visual_mask(inputs["input_ids"]), -100)
    model.train()
    losses = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        with argus.attach(model, reducer, keep=0.5):
            loss = model(**inputs, labels=labels, use_cache=False).loss
            loss.backward()
        grads = [p.grad.clone() for p in (model.lm_head.weight, *anatomy(model).projector.parameters())]
        assert all(g.abs().sum() > 0 for g in grads)
        losses.append((loss.detach(), grads))
    torch.testing.assert_close(losses[0], losses[1])


def test_adapters_are_looked_through(reducer: str) -> None:
    from peft import LoraConfig, get_peft_model

    model, inputs = llava(), llava_inputs([1], [4])
    with argus.attach(model, reducer, keep=0.4), torch.no_grad():
        expected = model(**inputs).logits
    wrapped = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=True, r=2)).eval()
    with argus.attach(wrapped, reducer, keep=0.4), torch.no_grad():
        torch.testing.assert_close(wrapped(**inputs).logits, expected)


# -- kernels


def test_own_matmul_attention(reducer: str) -> None:
    """The CPU kernel that Argus registers is cut and listened to like any other."""
    inputs = llava_inputs([1, 2], [5, 3])
    logits = []
    for attention in ("sdpa", "matmul"):
        model = FAMILIES["argus"].model(attention)
        with argus.attach(model, reducer, keep=0.4), torch.no_grad():
            logits.append(model(**inputs).logits)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[0][real], logits[1][real], atol=2e-5, rtol=1e-4)


def test_kernels_that_take_padding_masks(reducer: str, flash: str) -> None:
    """Flash kernels get (B, K) masks; different numbers of survivors are padding to them."""
    inputs = llava_inputs([1, 2, 1], [5, 3, 4])
    out = []
    for attention in ("sdpa", flash):
        model = llava()
        model.model.language_model.config._attn_implementation = attention
        with argus.attach(model, reducer, keep=0.4):
            out.append(
                model.generate(
                    **inputs, max_new_tokens=3, do_sample=False, output_logits=True, return_dict_in_generate=True, **PLAIN
                )
            )
    torch.testing.assert_close(torch.stack(out[0].logits), torch.stack(out[1].logits), atol=2e-5, rtol=1e-4)
    assert torch.equal(out[0].sequences, out[1].sequences)
