"""NVLM: gated cross-attention, held against the language model alone, loops over rows, and Mllama's layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer

from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.model.backbones.gated_cross_attention import GatedLayer
from argus.model.backbones.seen import GIVEN
from argus.model.compose import compose
from argus.model.token_map import VISUAL
from tests.model.backbones.nvlm import AREA, made, words
from tests.model.several import ENCODER, PICTURES, encode, mixed
from tests.model.tiny import LANGUAGE, tokenizer

# -- gates, and what is not touched


@pytest.mark.parametrize("language", LANGUAGE)
def test_with_gates_at_zero_it_is_the_language_model(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("cross", monkeypatch, gate=0.0, language=language)
    inputs = mixed(processor)
    assert not (inputs["input_ids"] == processor.image_token_id).any()
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, words(model, inputs["input_ids"], inputs["attention_mask"]))


def test_hybrid_with_gates_at_zero_is_the_decoder_with_the_thumbnail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles have no effect; the thumbnail has."""
    model, processor = made("hybrid", monkeypatch, gate=0.0)
    inputs = encode(processor, ["red"], [PICTURES[:1]])
    changed = [inputs["pixel_values"].clone() for _ in range(2)]
    changed[0][:2] += 1
    changed[1][2] += 1
    with torch.no_grad():
        base, tiles, thumbnail = (
            model(**{**inputs, "pixel_values": p}).logits[0, -1] for p in (inputs["pixel_values"], *changed)
        )
    assert torch.equal(base, tiles)
    assert not torch.allclose(base, thumbnail)


def test_text_without_pictures_is_the_language_models_whatever_was_learned(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = encode(processor, ["red", "How many things are there?"], [[], []])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, words(model, inputs["input_ids"], inputs["attention_mask"]))


def test_text_before_a_picture_is_unaffected_by_it(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = processor(images=PICTURES[:1], text="What colour is the star?<image>red", return_tensors="pt")
    known = processor.token_map(inputs)
    before = int((known.image[0] >= 0).int().argmax())
    assert before > 3
    with torch.no_grad():
        found = model(**inputs).logits[:, :before]
        torch.testing.assert_close(found, words(model, inputs["input_ids"][:, :before]), rtol=0, atol=1e-5)
        changed = {**inputs, "pixel_values": inputs["pixel_values"] + 1}
        assert torch.equal(model(**changed).logits[:, :before], found)


# -- the mask


def test_a_tag_responds_to_its_tile_alone_and_text_behind_to_all(both: tuple[Any, Any]) -> None:
    """The first gated layer by itself: which rows change when a tile does."""
    model, processor = both
    inputs = encode(processor, ["red"], [[PICTURES[2], PICTURES[0]]])
    known, states = processor.token_map(inputs), []
    model.model.cross_attention.layers[0].register_forward_hook(lambda module, args, out: states.append(out[0]))
    tiles = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]  # picture and tile of each row of pixels
    with torch.no_grad():
        model(**inputs)
        for number, (image, tile) in enumerate(tiles):
            pixels = inputs["pixel_values"].clone()
            pixels[number] += 1
            model(**{**inputs, "pixel_values": pixels})
            moved = (states[-1] != states[0]).any(-1)  # (S,)
            own = (known.image[0] == image) & (known.tile[0] == tile)
            last = int((known.image[0] == image).nonzero().max())
            expected = known.tags[0] & own | (known.image[0] < 0) & (torch.arange(len(moved)) > last)
            if model.model.fusion == "hybrid" and tile == (3, 2)[image]:
                expected = (known.kind[0] == VISUAL) & own  # the thumbnail is in the sequence and nobody's key
            assert torch.equal(moved, expected), (image, tile)


def test_rows_that_see_nothing_pass_unchanged(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs, noted = mixed(processor), []
    layer = model.model.cross_attention.layers[0]
    layer.register_forward_hook(lambda module, args, out: noted.append((args, out)))
    with torch.no_grad():
        model(**inputs)
    (x, *_, rows), out = noted[0]
    still = ~rows[..., 0]
    assert still.any(1).all()
    assert still[2].all()
    assert rows.any()
    assert torch.equal(out[still], x[still])
    assert not torch.isclose(out[~still], x[~still]).all(-1).any()


def test_attention_equals_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row over the keys that the mask opens, for batches with padding and different numbers of tiles."""
    model, processor = made("cross", monkeypatch)
    inputs, noted = mixed(processor), []
    layer = model.model.cross_attention.layers[0]
    layer.register_forward_hook(lambda module, args, out: noted.append((args, out)))
    with torch.no_grad():
        model(**inputs)
        (x, key, value, mask, rows), out = noted[0]
        attention = layer.cross_attn
        for b, s in rows[..., 0].nonzero().tolist():
            query = attention.q_norm(attention.q_proj(layer.input_layernorm(x[b, s])).view(2, -1))  # (h, d), h_kv = 1
            open_ = mask[b, 0, s] == 0
            assert AREA <= int(open_.sum()) <= 5 * AREA
            weights = (query @ key[b, 0, open_].T / query.shape[1] ** 0.5).softmax(-1)
            h = x[b, s] + torch.tensor(1.0).tanh() * attention.o_proj((weights @ value[b, 0, open_]).flatten())
            h = h + torch.tensor(1.0).tanh() * layer.mlp(layer.post_attention_layernorm(h))
            torch.testing.assert_close(out[b, s], h, rtol=1e-4, atol=1e-4)


def test_the_layer_is_mllamas() -> None:
    """Same weights, same output."""
    config = MllamaTextConfig(
        vocab_size=8,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        cross_attention_layers=[0],
        rms_norm_eps=1e-5,
        hidden_act="silu",
    )
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    theirs, ours = MllamaCrossAttentionDecoderLayer(config, 0).eval(), GatedLayer(config, 0, 0.0).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    x, visual = torch.randn(2, 5, 64), torch.randn(2, 7, 64)
    mask = torch.zeros(2, 1, 5, 7).masked_fill(torch.rand(2, 1, 5, 7) < 0.4, torch.finfo(torch.float32).min)
    key, value = (t.transpose(1, 2) for t in ours.cross_attn.keys(visual))
    with torch.no_grad():
        expected = theirs(x, visual, mask, None, None)
        torch.testing.assert_close(ours(x, key, value, mask, torch.ones(2, 5, 1).bool()), expected, rtol=1e-5, atol=1e-5)


# -- what is refused


def test_unfit_combinations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="has 2 layers"):
        made("cross", monkeypatch, every=8)
    with pytest.raises(RecipeError, match="fusion"):
        made("crossed", monkeypatch)
    with pytest.raises(UnsupportedError, match="equally many tokens"):
        made("cross", monkeypatch, thumbnail_tag=None)
    _, processor = made("hybrid", monkeypatch, thumbnail=False)
    with pytest.raises(UnsupportedError, match="thumbnail in the sequence"):
        encode(processor, ["red"], [PICTURES[:1]])
    monkeypatch.setattr("argus.model.compose._tokenizer", lambda spec: tokenizer())
    parts = {"language_model": {"causal_lm": LANGUAGE["llama"], "tokenizer": "words"}, "encoder": ENCODER}
    with pytest.raises(UnsupportedError, match="the view 'square' cuts none"):
        compose({**parts, "backbone": {"gated_cross_attention": {"every": 1}}})
    with pytest.raises(UnsupportedError, match="the view 'internvl' writes nothing"):
        compose({**parts, "view": "internvl", "backbone": {"gated_cross_attention": {"every": 1}}})


def test_pictures_that_are_not_in_the_text_are_refused(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs, text = encode(processor, ["red"], [PICTURES[:1]]), encode(processor, ["red"], [[]])
    if model.model.fusion == "cross":
        with pytest.raises(ModelError, match="1 of 1 pictures have no place in the text"):
            model(**{**inputs, **text})
    cache = model(**text, use_cache=True).past_key_values
    assert not hasattr(cache, GIVEN)
