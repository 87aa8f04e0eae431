"""The equation of contrastive decoding on vectors worked out by hand, and the processor's place among the others."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

import argus
from argus.core.errors import RecipeError, UnknownNameError, UnsupportedError
from argus.methods.decoding.attachment import decoding
from argus.methods.decoding.contrastive import combine
from tests.methods.families import FAMILIES, llava, llava_inputs

Z, NEGATIVE = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0]])


@pytest.mark.parametrize(
    ("alpha", "beta", "scores", "probabilities"),
    [
        # 2 * [2, 1, 0] - [1, 2, 0]; log .1 = -2.303, so nothing is below 2 - 2.303
        (1.0, 0.1, [3.0, 0.0, 0.0], [0.909443, 0.045279, 0.045279]),
        # log .5 = -0.693: 1 and 0 are below 1.307
        (1.0, 0.5, [3.0, -math.inf, -math.inf], [1.0, 0.0, 0.0]),
        # 3 * [2, 1, 0] - 2 * [1, 2, 0]
        (2.0, 0.1, [4.0, -1.0, 0.0], [0.975559, 0.006573, 0.017868]),
        (0.0, 0.0, [2.0, 1.0, 0.0], [0.665241, 0.244728, 0.090031]),
    ],
)
def test_by_hand(alpha: float, beta: float, scores: list[float], probabilities: list[float]) -> None:
    found = combine(Z, NEGATIVE, alpha, beta)
    torch.testing.assert_close(found, torch.tensor([scores]))
    torch.testing.assert_close(found.softmax(-1), torch.tensor([probabilities]), atol=1e-6, rtol=0)


@given(z=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=6), beta=st.floats(0.01, 1))
def test_ruled_out_below_a_share_of_the_likeliest(z: list[float], beta: float) -> None:
    """z < log(beta) + max z says p < beta max p; it is about the model's own logits, whatever alpha."""
    logits = torch.tensor([z], dtype=torch.float64)
    probability = logits.softmax(-1)
    sure = (probability / probability.amax() - beta).abs() > 1e-6
    gone = combine(logits, -logits, 1.0, beta).isinf()
    assert torch.equal(gone[sure], (probability < beta * probability.amax())[sure])


def test_identical_branches_leave_the_base() -> None:
    """(1 + alpha) z - alpha z = z, but for the cutoff."""
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(combine(logits, logits, 2.0, 0.0), logits)
    cut = combine(logits, logits, 2.0, 0.1)
    kept = ~cut.isinf()
    assert kept.any(-1).all()
    assert not kept.all()
    torch.testing.assert_close(cut[kept], logits[kept])


PLAIN: dict[str, Any] = {"pad_token_id": 0, "do_sample": False, "max_new_tokens": 4}


def test_nothing_changes_without_contrast_and_cutoff(models: dict[str, Any], family: str) -> None:
    """alpha 0, beta 0: tokens and scores of greedy and sampled decoding equal the base model's."""
    model, inputs = models[family], FAMILIES[family].inputs([1, 2, 0], [4, 6, 5])
    for how in ({}, {"do_sample": True, "temperature": 0.7}, {"num_beams": 2}):
        options = {**PLAIN, **how, "output_scores": True, "return_dict_in_generate": True}
        torch.manual_seed(0)
        base = model.generate(**inputs, **options)
        torch.manual_seed(0)
        with argus.attach(model, "damro", alpha=0.0, beta=0.0, tokens=3):
            same = model.generate(**inputs, **options)
        assert torch.equal(base.sequences, same.sequences)
        torch.testing.assert_close(torch.stack(base.scores), torch.stack(same.scores))


def test_without_contrast_only_the_cutoff_is_left(models: dict[str, Any]) -> None:
    model, inputs = models["llava"], llava_inputs([1], [4])
    options = {**PLAIN, "output_logits": True, "output_scores": True, "return_dict_in_generate": True}
    with argus.attach(model, "damro", alpha=0.0, beta=0.2):
        out = model.generate(**inputs, **options)
    for logits, scores in zip(out.logits, out.scores, strict=True):
        gone = logits < math.log(0.2) + logits.amax(-1, keepdim=True)
        assert torch.equal(scores, logits.masked_fill(gone, -math.inf))


def test_it_stands_in_front_of_all_other_processors(models: dict[str, Any]) -> None:
    """The contrast is about raw logits; penalties, temperature and a user's own processor act on its result."""

    class Seen(LogitsProcessor):
        scores: Tensor

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            self.scores = scores
            return scores

    model, inputs, seen = models["llava"], llava_inputs([1], [4]), Seen()
    options = {**PLAIN, "max_new_tokens": 1, "output_scores": True, "return_dict_in_generate": True}
    with argus.attach(model, "damro", tokens=3, beta=0.0):
        plain = model.generate(**inputs, **options).scores[0]
        penalised = model.generate(**inputs, **options, repetition_penalty=1.5, logits_processor=LogitsProcessorList([seen]))
    used = torch.zeros_like(plain, dtype=torch.bool).scatter_(1, inputs["input_ids"], True)
    expected = torch.where(plain < 0, plain * 1.5, plain / 1.5).where(used, plain)
    torch.testing.assert_close(penalised.scores[0], expected)
    torch.testing.assert_close(seen.scores, expected)


def test_detaching_gives_the_model_back(models: dict[str, Any], family: str) -> None:
    model, inputs = models[family], FAMILIES[family].inputs([1], [4])
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    before = dict(vars(model))
    attachment = argus.attach(model, "damro", tokens=3)
    model.generate(**inputs, **PLAIN)
    assert attachment.attached
    assert decoding(model) is attachment
    attachment.detach()
    attachment.detach()  # without effect
    assert not attachment.attached
    assert decoding(model) is None
    assert vars(model).keys() == before.keys()
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks


def test_what_cannot_work_is_refused(models: dict[str, Any]) -> None:
    model, inputs = models["llava"], llava_inputs([1], [4])
    with argus.attach(model, "damro"):
        with pytest.raises(UnsupportedError, match="'damro' already decides"):
            argus.attach(model, "damro")
        with pytest.raises(UnsupportedError, match="needs the whole prompt at once"):
            model.generate(**inputs, **PLAIN, prefill_chunk_size=40)
        with pytest.raises(UnsupportedError, match="one new token per step"):
            model.generate(**inputs, **{**PLAIN, "max_new_tokens": 12}, prompt_lookup_num_tokens=2)
        text = {k: v[:, -4:] for k, v in inputs.items() if k != "pixel_values"}
        cache = model(**text, use_cache=True).past_key_values
        with pytest.raises(UnsupportedError, match="pictures follow a filled cache"):
            model(inputs["input_ids"], pixel_values=inputs["pixel_values"], past_key_values=cache)
    with pytest.raises(UnknownNameError, match=r"unknown technique 'damroo'\. Did you mean 'damro'"):
        argus.attach(model, "damroo")
    with pytest.raises(RecipeError, match=r"unknown option 'alfa'\. Did you mean 'alpha'"):
        argus.attach(model, "damro", alfa=1.0)


def test_prompts_without_pictures_are_left_alone() -> None:
    """Also behind a forward pass that had one."""
    model, inputs = llava(), llava_inputs([0], [9])
    base = model.generate(**inputs, **PLAIN)
    with argus.attach(model, "damro", tokens=3):
        model(**llava_inputs([1], [4]))
        assert torch.equal(model.generate(**inputs, **PLAIN), base)
