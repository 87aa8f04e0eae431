"""NVLM: three ways into the language model, held against the language model alone, loops over rows, and Mllama's layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer

import argus
from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.cost import measure
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.model.anatomy import anatomy
from argus.model.backbones.gated_cross_attention import GatedLayer
from argus.model.backbones.seen import GIVEN
from argus.model.compose import compose
from argus.model.load import load
from argus.model.token_map import VISUAL, TokenMap
from argus.training.parts import set_trainable
from tests.model.tiny import LANGUAGE, chat, tokenizer

ENCODER = {
    "vit": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 16}
}
CROSS = ("cross", "hybrid")
ANSWER = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
AREA = 4  # visual tokens of a tile


def made(
    fusion: str, monkeypatch: pytest.MonkeyPatch, *, gate: float = 1.0, every: int = 1, language: str = "llama", **view: Any
) -> tuple[Any, Any]:
    """A random model; weights large enough for pictures to matter, gates open."""
    monkeypatch.setattr("argus.model.compose._tokenizer", lambda spec: tokenizer())
    torch.manual_seed(0)
    model, processor = compose(
        {
            "language_model": {"causal_lm": LANGUAGE[language], "tokenizer": "words"},
            "encoder": ENCODER,
            "view": {"nvlm": {"thumbnail_tag": "<tile_0>", **view}},
            "backbone": {"gated_cross_attention": {"fusion": fusion, "every": every, "gate": gate}},
        }
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval(), processor


@pytest.fixture(params=CROSS)
def both(request: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    return made(request.param, monkeypatch)


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


# 2 tiles and a thumbnail, one tile, 3 tiles and a thumbnail
PICTURES = [picture(i, size) for i, size in enumerate([(40, 20), (16, 16), (30, 75)])]


def encode(processor: Any, texts: list[str], groups: list[list[Image.Image]]) -> Any:
    prompts = [
        processor.apply_chat_template(chat(t, len(g)), tokenize=False, add_generation_prompt=True)
        for t, g in zip(texts, groups, strict=True)
    ]
    return processor(images=[p for g in groups for p in g] or None, text=prompts, return_tensors="pt", padding=True)


def mixed(processor: Any) -> Any:
    return encode(processor, ["What colour is the star?", "How many?", "red"], [PICTURES[:1], PICTURES[1:], []])


def words(model: Any, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits of the language model alone."""
    return model.lm_head(model.model.language_model(input_ids=ids, attention_mask=mask).last_hidden_state)


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


# -- batches, caches, files


def test_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Per picture: the sequence holds all tiles, the thumbnail, or the tags alone."""
    found = {}
    for fusion in ("decoder", *CROSS):
        model, processor = made(fusion, monkeypatch)
        tag, views = model.config.tag_length, processor.arrange(30, 75).tiles
        assert views == 4
        wrap = sum(len(processor.tokenizer(t).input_ids) for t in ("<Image>", "</Image>"))
        found[fusion] = len(processor.picture_ids(30, 75)) - wrap
        assert processor.image_token_count(30, 75) == found[fusion] - views * tag
        assert len(processor.picture_ids(16, 16)) == wrap + tag + (0 if fusion == "cross" else AREA)
    assert found == {"decoder": views * (AREA + tag), "hybrid": views * tag + AREA, "cross": views * tag}


def test_a_batch_equals_one_by_one(both: tuple[Any, Any]) -> None:
    model, processor = both
    groups, texts = [PICTURES[:1], PICTURES[1:], []], ["What colour is the star?", "How many?", "red"]
    inputs = encode(processor, texts, groups)
    together = model.generate(**inputs, **ANSWER)[:, inputs["input_ids"].shape[1] :]
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
        for index in range(3):
            one = encode(processor, texts[index : index + 1], groups[index : index + 1])
            torch.testing.assert_close(model(**one).logits[0, -1], logits[index], rtol=1e-3, atol=1e-3)
            assert torch.equal(model.generate(**one, **ANSWER)[0, one["input_ids"].shape[1] :], together[index])


def test_decoding_with_a_cache_equals_the_whole_sequence(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = mixed(processor)
    answer = model.generate(**inputs, **ANSWER)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        for _ in range(4):
            token = model(**{**inputs, "input_ids": ids, "attention_mask": mask}).logits[:, -1:].argmax(-1)
            ids, mask = torch.cat([ids, token], 1), torch.cat([mask, torch.ones_like(token)], 1)
    assert torch.equal(answer, ids)


def test_keys_are_computed_once_per_picture(both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = both
    seen: list[int] = []
    for layer in model.model.cross_attention.layers:
        layer.cross_attn.k_proj.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    inputs = mixed(processor)
    model.generate(**inputs, **ANSWER, num_beams=3)
    tiles = len(inputs["pixel_values"]) - (3 if model.model.fusion == "hybrid" else 0)
    assert seen == [tiles * AREA] * 2  # two layers


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}, {"prefill_chunk_size": 7}, {"prefill_chunk_size": 7, "num_beams": 2}])
def test_the_map_is_the_processors_however_it_was_read(both: tuple[Any, Any], more: dict[str, Any]) -> None:
    model, processor = both
    inputs = mixed(processor)
    plain, answer = model.generate(**inputs, **ANSWER), model.generate(**inputs, **ANSWER, **more)
    if "num_beams" not in more:
        assert torch.equal(answer, plain)
    found = model.model.token_map.slice(0, inputs["input_ids"].shape[1])
    expected = processor.token_map(inputs).select(torch.arange(3).repeat_interleave(more.get("num_beams", 1)))
    for name in TokenMap.__slots__:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_beams_equal_beams_over_whole_sequences(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = mixed(processor)
    cached = model.generate(**inputs, **ANSWER, num_beams=3)
    chunks = model.generate(**inputs, **ANSWER, num_beams=3, prefill_chunk_size=7)
    assert torch.equal(cached, chunks)
    alone = encode(processor, ["How many?"], [PICTURES[1:]])
    expected = model.generate(**alone, **ANSWER, num_beams=3)[0, -4:]
    assert torch.equal(cached[1, -4:], expected)


def test_files_bring_it_back(both: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = both
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor_again = load(str(tmp_path))
    assert again.config.backbone == model.config.backbone
    assert again.model.fusion == processor_again.fusion == model.model.fusion
    inputs, inputs_again = mixed(processor), mixed(processor_again)
    assert all(torch.equal(inputs[k], inputs_again[k]) for k in inputs)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs_again).logits)


def test_bf16(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = mixed(processor)
    with torch.no_grad():
        expected = model(**inputs).logits
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(model(**inputs).logits).all()
        model.bfloat16()
        found = model(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()}).logits
    assert found.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(found.float(), expected, -1)[inputs["attention_mask"].bool()].min() > 0.9


def test_pictures_in_later_turns(both: tuple[Any, Any]) -> None:
    """Behind a KV cache, with and without a picture in between: the logits of the whole sequence."""
    model, processor = both
    parts = [
        processor(images=[p], text=f"<image>{t}", return_tensors="pt")
        for p, t in zip(PICTURES[::2], ("red", "blue"), strict=True)
    ]
    whole = processor(images=PICTURES[::2], text="<image>red<image>blue", return_tensors="pt")
    with torch.no_grad():
        expected, known = model(**whole).logits[:, -1], model.model.token_map
        cache = model(**parts[0], use_cache=True).past_key_values
        later = {k: v for k, v in parts[1].items() if k != "attention_mask"}
        found = model(**later, past_key_values=cache, use_cache=True).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    for name in TokenMap.__slots__:
        assert torch.equal(getattr(model.model.token_map, name), getattr(known, name)), name


def test_features_computed_before_take_the_place_of_pixels(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = mixed(processor)
    rest = {k: v for k, v in inputs.items() if k != "pixel_values"}
    with torch.no_grad():
        features = model.get_image_features(inputs["pixel_values"], image_sizes=inputs["image_sizes"])
        assert [len(f) for f in features] == [3 * AREA, AREA, 4 * AREA]
        assert torch.equal(model(**rest, image_features=features).logits, model(**inputs).logits)
        # Encoding a picture leaves nothing behind that a text would see.
        text = encode(processor, ["red"], [[]])
        assert torch.equal(model(**text).logits, words(model, text["input_ids"]))
    for more in ({}, {"num_beams": 2}):
        expected = model.generate(**inputs, **ANSWER, **more)
        assert torch.equal(model.generate(**rest, image_features=features, **ANSWER, **more), expected)


def test_shared_prefixes_of_evaluation_are_exact(both: tuple[Any, Any]) -> None:
    """Questions behind one picture's cache, packed as trees."""
    model, processor = both
    asked = LocalModel(model, processor)
    questions = []
    for number, (text, shown) in enumerate([("red", 0), ("How many?", 0), ("What colour is the star?", 2)]):
        message = Message("user", [ImagePart(PICTURES[shown]), TextPart(text)])
        sample = Sample(str(number), [message], options=["yes", "no 1"])
        questions.append(Question(str(shown), sample, [PICTURES[shown]]))
    scores = asked.score(questions, mean=False)
    assert asked.shares
    prompts = asked.held.prompter.prompts(questions, options=True)
    with torch.inference_mode():
        expected = asked.alone.score(questions, prompts, mean=False)
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(expected), rtol=1e-3, atol=1e-3)


# -- training


def sample(shown: int, asked: list[str]) -> Sample:
    first = [ImagePart(PICTURES[shown])]
    messages = []
    for number, text in enumerate(asked):
        messages += [Message("user", [*(first if number == 0 else []), TextPart(text)]), Message("assistant", [TextPart("yes")])]
    return Sample(f"{shown}-{len(asked)}", messages)


@pytest.mark.parametrize("packing", [0, 400])
def test_turns_and_samples_of_a_row_stay_apart(both: tuple[Any, Any], packing: int) -> None:
    """The loss of many questions about several pictures is that of each asked alone."""
    model, processor = both
    objective = build("objective", "sft", {"packing": packing})
    objective.bind(model, processor)
    asked = {0: ["red", "How many?"], 2: ["What colour is the star?", "blue", "no"], 1: ["green"]}
    batch = objective.collate([sample(shown, texts) for shown, texts in asked.items()])
    if packing:
        assert len(batch["input_ids"]) == 1
    with torch.no_grad():
        loss, _ = objective.loss(model, batch)
        alone = [objective.loss(model, objective.collate([sample(s, [t])]))[0] for s, texts in asked.items() for t in texts]
    torch.testing.assert_close(loss, torch.stack(alone).mean(), rtol=1e-4, atol=1e-4)


def test_parts_learn_as_stages_say(both: tuple[Any, Any]) -> None:
    """Stage 1: connector and cross-attention; stage 2: with the language model; never the encoder."""
    model, processor = both
    objective = build("objective", "sft", {})
    objective.bind(model, processor)
    batch = objective.collate([sample(0, ["red"]), sample(2, ["How many?"])])
    for train in (["multi_modal_projector", "cross_attention"], ["multi_modal_projector", "cross_attention", "language_model"]):
        counts = set_trainable(model, train, [])
        assert set(counts) == set(train)
        model.zero_grad()
        objective.loss(model, batch)[0].backward()
        for name, parameter in model.named_parameters():
            learns = any(part in name for part in train) and "lm_head" not in name
            assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == learns, name


def test_text_only_perplexity_stays_while_the_language_model_is_frozen(both: tuple[Any, Any]) -> None:
    """To the last bit after steps on pictures; once the language model learns too, it is another one."""
    model, processor = both
    objective = build("objective", "sft", {})
    objective.bind(model, processor)
    batch = objective.collate([sample(0, ["red"]), sample(2, ["How many?"])])
    texts = encode(processor, ["red green blue", "What colour is the star?"], [[], []])

    def perplexity() -> float:
        with torch.no_grad():
            labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)
            return float(model(**texts, labels=labels).loss.exp())

    def learn(train: list[str]) -> None:
        set_trainable(model, train, [])
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            objective.loss(model, batch)[0].backward()
            optimiser.step()

    before = perplexity()
    learn(["multi_modal_projector", "cross_attention"])
    assert perplexity() == before
    learn(["language_model"])
    assert perplexity() != before


def test_gates_open_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0 the gates have a gradient, and what is behind them has none yet."""
    model, processor = made("cross", monkeypatch, gate=0.0)
    inputs = mixed(processor)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    layer = model.model.cross_attention.layers[0]
    assert layer.cross_attn_attn_gate.grad.abs() > 0
    assert layer.cross_attn_mlp_gate.grad.abs() > 0
    assert not layer.cross_attn.v_proj.weight.grad.any()


def test_checkpointing_gives_the_same_gradients(both: tuple[Any, Any]) -> None:
    """Two passes before one backward: each is computed again with what it saw."""
    model, processor = both
    batches, gradients = [encode(processor, ["red"], [PICTURES[:1]]), encode(processor, ["blue", "no"], [PICTURES[2:], []])], []
    for checkpoints in (False, True):
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        model.zero_grad()
        sum(model(**b, labels=b["input_ids"], use_cache=False).loss for b in batches).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


# -- tags, techniques, costs


@pytest.mark.parametrize("tags", ["1d", "2d_grid", "2d_box"])
def test_kinds_of_tags(tags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnail = {"thumbnail_tag": "<tile_x0_y9>"} if tags == "2d_grid" else {"thumbnail_tag": "<tile_0>"} if tags == "1d" else {}
    model, processor = made("cross", monkeypatch, tags=tags, **{"thumbnail_tag": None, **thumbnail})
    inputs = mixed(processor)
    assert int(processor.token_map(inputs).tags.sum()) == (3 + 1 + 4) * model.config.tag_length
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()


def test_without_tags_text_still_sees_the_picture_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("cross", monkeypatch, tags="none", thumbnail_tag=None)
    inputs = processor(images=PICTURES[:1], text="blue<image>red", return_tensors="pt")
    assert not processor.token_map(inputs).tags.any()
    with torch.no_grad():
        moved = (model(**inputs).logits != model(**{**inputs, "pixel_values": inputs["pixel_values"] + 1}).logits).any(-1)[0]
    first = int(moved.int().argmax())
    assert processor.tokenizer.decode(inputs["input_ids"][0, :first]) == "blue<Image>"
    assert moved[first:].all()
    with pytest.raises(UnsupportedError, match=r"the view 'nvlm' writes nothing"):
        made("cross", monkeypatch, tags="none", wrap=False)
    hybrid, processor = made("hybrid", monkeypatch, tags="none", wrap=False)
    with torch.no_grad():
        assert torch.isfinite(hybrid(**mixed(processor)).logits).all()


def test_reducers_act_on_the_thumbnail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("hybrid", monkeypatch)
    inputs = mixed(processor)
    tokens = anatomy(model).visual_tokens(inputs)
    assert [(c.item, c.image, c.tile) for c in tokens.crops] == [(0, 0, 2), (1, 0, 0), (1, 1, 3)]
    known = processor.token_map(inputs)
    assert (known.tile[tokens.item, tokens.column] == torch.tensor([2, 0, 3]).repeat_interleave(AREA)).all()
    with torch.no_grad():
        base, answer = model(**inputs).logits, model.generate(**inputs, **ANSWER)
        for name in ("fastervlm", "random"):
            with argus.attach(model, name, keep=1.0):
                assert torch.equal(model(**inputs).logits, base)
                assert torch.equal(model.generate(**inputs, **ANSWER), answer)
            with argus.attach(model, name, keep=0.5) as attachment:
                assert not torch.equal(model(**inputs).logits, base)
                model.generate(**inputs, **ANSWER)
                assert [(k.tile, len(k.indices), k.total) for k in attachment.kept] == [(2, 2, 4), (0, 2, 4), (3, 2, 4)]


def test_reducers_are_refused_where_no_visual_token_is_in_the_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("cross", monkeypatch)
    for name in ("fastervlm", "random", "fastv"):
        with pytest.raises(UnsupportedError, match="by cross-attention, so there are no visual tokens in its sequence"):
            argus.attach(model, name, keep=0.5)
    assert not hasattr(model.model, "_argus_layer_plan")
    assert len(anatomy(model).visual_tokens(mixed(processor))) == 0


def test_keys_of_tiles_are_counted_as_cache(both: tuple[Any, Any]) -> None:
    model, processor = both
    message = Message("user", [ImagePart(PICTURES[2]), TextPart("red")])
    question = Question("0", Sample("0", [message]), [PICTURES[2]])
    cost = measure(LocalModel(model, processor), question, decode=1, repeats=1)
    inputs = encode(processor, ["red"], [PICTURES[2:]])
    hybrid = model.model.fusion == "hybrid"
    positions = inputs["input_ids"].shape[1] + (3 if hybrid else 4) * AREA
    assert cost.kv_bytes == positions * 2 * 2 * 24 * 4  # two layers, keys and values, one head of 24, fp32
    assert cost.visual_tokens == [AREA * hybrid] * 2


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
