"""NVLM's cross-attention in batches, behind caches, in beams and chunks, and out of files: equal to the whole sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.model.load import load
from argus.model.token_map import TokenMap
from tests.model.backbones.nvlm import AREA, CROSS, made, words
from tests.model.several import ANSWER, PICTURES, assert_each_alone, encode, mixed


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
    texts = ["What colour is the star?", "How many?", "red"]
    assert_each_alone(*both, texts, [PICTURES[:1], PICTURES[1:], []])


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
