"""What cannot be cut is refused when it is asked for, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import argus
from argus.core.errors import RecipeError, UnknownNameError, UnsupportedError
from tests.methods.families import llava, llava_inputs
from tests.methods.reducers import IN_LLM

pytestmark = pytest.mark.filterwarnings("ignore")


def test_refusals(models: dict[str, Any]) -> None:
    model, inputs = models["llava"], llava_inputs([1], [4])
    with pytest.raises(UnknownNameError, match="Did you mean 'fastervlm'"):
        argus.attach(model, "fastervml")
    with pytest.raises(RecipeError, match="Did you mean 'keep'"):
        argus.attach(model, "fastervlm", kep=0.5)
    with pytest.raises(RecipeError, match="less than or equal to 1"):
        argus.attach(model, "fastervlm", keep=1.5)
    with pytest.raises(UnsupportedError, match="only 3 layers"):
        argus.attach(model, "fastv", layer=3)
    with pytest.raises(UnsupportedError, match="model type 'clip_vision_model'"):
        argus.attach(model.model.vision_tower, "fastv")
    with argus.attach(model, "fastervlm", keep=0.5):
        with pytest.raises(UnsupportedError, match="StaticLayer cannot hold different lengths"):
            model.generate(**inputs, max_new_tokens=2, cache_implementation="static")
        with pytest.raises(UnsupportedError, match="keep each picture in one prefill chunk"):
            model.generate(**inputs, max_new_tokens=2, prefill_chunk_size=16)
    assert not model.model.language_model.layers[0]._forward_pre_hooks


def test_pictures_encoded_elsewhere_are_refused_not_guessed(models: dict[str, Any]) -> None:
    """Features kept from another call must not be pruned by the scores of the last picture."""
    model = models["llava"]
    one, two = llava_inputs([1], [4], seed=1), llava_inputs([1], [4], seed=2)
    with torch.no_grad(), argus.attach(model, "fastervlm", keep=0.5):
        features = model.model.get_image_features(one["pixel_values"])
        text = {k: one[k] for k in ("input_ids", "attention_mask")}
        expected = model(**one).logits
        torch.testing.assert_close(model(**text, mm_encoder_outputs={"image": features}).logits, expected)
        model(**two)
        with pytest.raises(UnsupportedError, match="not one that was encoded last"):
            model(**text, mm_encoder_outputs={"image": features})


def test_pictures_encoded_before_attaching_are_refused(models: dict[str, Any], reducer: str) -> None:
    model, inputs = models["llava"], llava_inputs([1], [4])
    text = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    early = "encoded before the technique was attached"
    with torch.no_grad():
        features = {"image": model.model.get_image_features(inputs["pixel_values"])}
        with argus.attach(model, reducer), pytest.raises(UnsupportedError, match=early):
            model(**text, mm_encoder_outputs=features)
        with argus.attach(model, "fastv") as first:  # the encoder is heard, but nobody asked for what `reducer` reads
            features = {"image": model.model.get_image_features(inputs["pixel_values"])}
            with argus.attach(model, reducer):
                if reducer in IN_LLM:
                    model(**text, mm_encoder_outputs=features)
                else:
                    with pytest.raises(UnsupportedError, match=early):
                        model(**text, mm_encoder_outputs=features)
    assert not first.attached


def test_kernels_and_layers_that_cannot_be_cut(flash: str) -> None:
    model, inputs = llava(), llava_inputs([1], [4])
    config = model.model.language_model.config
    config._attn_implementation = "flex_attention"
    with pytest.raises(UnsupportedError, match="flex_attention builds its masks for whole sequences"):
        argus.attach(model, "fastervlm")
    config._attn_implementation = flash
    packed = torch.cat([torch.arange(30), torch.arange(inputs["input_ids"].shape[1] - 30)])[None]
    with argus.attach(model, "fastervlm"), pytest.raises(UnsupportedError, match="several sequences packed"):
        model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"], position_ids=packed)
    config._attn_implementation = "sdpa"
    config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    with pytest.raises(UnsupportedError, match="do not all see the whole sequence"):
        argus.attach(model, "fastervlm")


def test_only_embeddings_are_refused(models: dict[str, Any]) -> None:
    model, inputs = models["llava"], llava_inputs([1], [4])
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    with argus.attach(model, "fastervlm"), pytest.raises(UnsupportedError, match="found by input_ids"):
        model(inputs_embeds=embeddings, pixel_values=inputs["pixel_values"])
