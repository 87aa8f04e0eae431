"""Attached reducers are equal to physically cutting the sequence: in batches, beams, chunks and behind caches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import argus
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, IMAGE, llava_inputs, single
from tests.methods.reducers import PLAIN, greedy, renumbered

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("positions", ["consecutive", "original"])
def test_prefill_and_decode_equal_recomputing(family: str, reducer: str, attention: str, positions: str) -> None:
    model, inputs = FAMILIES[family].model(attention), FAMILIES[family].inputs([2], [5])
    with argus.attach(model, reducer, keep=0.4, positions=positions) as attachment:
        tokens, chosen_by = greedy(model, inputs, steps=4)
        with torch.no_grad():
            whole = model(**inputs).logits[0]
        gone = columns_gone(attachment, inputs, model)
    expected, columns = logits_with(model, inputs, gone, tokens[:-1], gone if positions == "consecutive" else ())
    prompt = inputs["input_ids"].shape[1]
    for step, logits in enumerate(chosen_by):
        torch.testing.assert_close(logits, expected[columns.index(prompt - 1 + step)], atol=2e-5, rtol=1e-4)
    stay = [c for c in columns if c < prompt]
    torch.testing.assert_close(whole[stay], expected[: len(stay)], atol=2e-5, rtol=1e-4)
    away = [c for c in range(prompt) if c not in stay]
    assert not whole[away].any()  # dropped positions give zeros, aligned with input_ids


def test_masking_equals_dropping(models: dict[str, Any], family: str, reducer: str) -> None:
    """`apply: mask` hides tokens and keeps shapes; what survivors compute is the same, also behind the cache."""
    model, inputs = models[family], FAMILIES[family].inputs([1, 2], [5, 3])
    logits, tokens = [], []
    for apply in ("drop", "mask"):
        with argus.attach(model, reducer, keep=0.4, apply=apply), torch.no_grad():
            logits.append(model(**inputs).logits)
            tokens.append(model.generate(**inputs, max_new_tokens=4, do_sample=False, **PLAIN))
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[0][real], logits[1][real], atol=2e-5, rtol=1e-4)
    assert torch.equal(*tokens)


@pytest.mark.parametrize("order", [("fastervlm", "fastv"), ("fastv", "fastervlm")])
def test_stacking(family: str, order: tuple[str, str]) -> None:
    """FasterVLM before the language model and FastV inside it, in whatever order they were attached."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [5])
    with argus.attach(model, order[0], keep=0.5) as a, argus.attach(model, order[1], keep=0.5) as b:
        tokens, chosen_by = greedy(model, inputs, steps=3)
        outer, inner = (a, b) if order[0] == "fastervlm" else (b, a)
        gone = columns_gone(outer, inputs, model) | columns_gone(inner, inputs, model)
    sizes = anatomy(model).visual_tokens(inputs).crop.bincount().tolist()
    half = sum(int(size * 0.5 + 0.5) for size in sizes)
    assert (outer.counts[0].kept, inner.counts[0].kept) == (half, int(half * 0.5 + 0.5))
    for last, first in zip(inner.kept, outer.kept, strict=True):
        assert set(last.indices.tolist()) <= set(first.indices.tolist())
    # FasterVLM renumbers before layer 0, FastV keeps the numbers it finds.
    expected, columns = logits_with(model, inputs, gone, tokens[:-1], consecutive={0})
    for step, logits in enumerate(chosen_by):
        torch.testing.assert_close(logits, expected[columns.index(inputs["input_ids"].shape[1] - 1 + step)], atol=2e-5, rtol=1e-4)


# -- batches


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batch_with_padding_equals_one_by_one(family: str, reducer: str, attention: str) -> None:
    """Items differ in pictures and words, so they are padded, and keep different numbers of tokens."""
    model, pictures = FAMILIES[family].model(attention), [1, 2, 1]
    batch = FAMILIES[family].inputs(pictures, [9, 3, 4])
    with argus.attach(model, reducer, keep=0.35) as attachment:
        out = model.generate(
            **batch,
            max_new_tokens=3,
            do_sample=False,
            **PLAIN,
            output_logits=True,
            return_dict_in_generate=True,
        )
        together = [(k.item, k.image, k.indices.tolist()) for k in attachment.kept]
        alone = []
        for item in range(3):
            tokens, logits = greedy(model, single(batch, item, family, pictures), steps=3)
            alone += [(item, k.image, k.indices.tolist()) for k in attachment.kept]
            assert out.sequences[item, -3:].tolist() == tokens
            for step in range(3):
                torch.testing.assert_close(out.logits[step][item], logits[step], atol=2e-5, rtol=1e-4)
    assert together == alone
    assert len({sum(len(k[2]) for k in together if k[0] == item) for item in range(3)}) > 1


def test_right_padding_in_training(models: dict[str, Any], reducer: str) -> None:
    """Collators pad on the right; the last prompt row is then not the last column."""
    model, pictures = models["llava"], [1, 2]
    batch = llava_inputs(pictures, [4, 6])
    alone = [single(batch, item, "llava", pictures) for item in range(2)]
    length = batch["input_ids"].shape[1]
    padded = {"pixel_values": batch["pixel_values"]}
    for key in ("input_ids", "attention_mask"):
        padded[key] = torch.cat([torch.nn.functional.pad(a[key], (0, length - a[key].shape[1])) for a in alone])
    with argus.attach(model, reducer, keep=0.5), torch.no_grad():
        together = model(**padded).logits
        for item, inputs in enumerate(alone):
            torch.testing.assert_close(
                together[item, : inputs["input_ids"].shape[1]], model(**inputs).logits[0], atol=2e-5, rtol=1e-4
            )


def test_items_without_pictures(models: dict[str, Any], family: str, reducer: str) -> None:
    """A batch mixes prompts with and without pictures; the latter are as if nothing were attached."""
    model, pictures = models[family], [1, 0]
    batch = FAMILIES[family].inputs(pictures, [4, 9])
    real = batch["attention_mask"][1].bool()
    with torch.no_grad():
        alone = model(input_ids=batch["input_ids"][1:, real]).logits[0]
        with argus.attach(model, reducer, keep=0.4) as attachment:
            together = model(**batch).logits
    torch.testing.assert_close(together[1, real], alone, atol=2e-5, rtol=1e-4)
    assert [c.item for c in attachment.counts] == [0]


def test_beams(family: str, reducer: str) -> None:
    """Beam search reorders the cache; its score of the best beam equals that of the sequence, recomputed."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [5])
    with argus.attach(model, reducer, keep=0.4) as attachment:
        out = model.generate(
            **inputs,
            max_new_tokens=4,
            num_beams=3,
            **PLAIN,
            output_scores=True,
            return_dict_in_generate=True,
            length_penalty=0.0,
            do_sample=False,
        )
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
        gone = columns_gone(attachment, inputs, model)
    tokens = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    logits, columns = logits_with(model, inputs, gone, tokens, renumbered(reducer))
    first = columns.index(inputs["input_ids"].shape[1] - 1)
    log_p = logits[first : first + 4].log_softmax(-1)
    total = sum(log_p[i, t] for i, t in enumerate(tokens))
    torch.testing.assert_close(out.sequences_scores[0], total, atol=1e-4, rtol=1e-4)


# -- behind a cache


@pytest.mark.parametrize("mode", ["fastervlm", "random"])
def test_questions_behind_a_cached_picture(models: dict[str, Any], family: str, mode: str) -> None:
    """A picture is prefilled once; questions follow, with the cache copied or cropped between them."""
    model = models[family]
    pictures, words = [1, 2], [6, 6]
    inputs = FAMILIES[family].inputs(pictures, words)
    length, split = inputs["input_ids"].shape[1], inputs["input_ids"].shape[1] - 5
    with argus.attach(model, mode, keep=0.4), torch.no_grad():
        expected = model(**inputs).logits[:, split:]
        prefix = {k: v[:, :split] if v.shape[:2] == (2, length) else v for k, v in inputs.items()}
        cache = model(**prefix, use_cache=True).past_key_values
        assert cache.get_seq_length() == split
        question = {"input_ids": inputs["input_ids"][:, split:], "attention_mask": inputs["attention_mask"]}
        if anatomy(model).mrope:
            places, _ = model.model.get_rope_index(**{k: v for k, v in inputs.items() if k != "pixel_values"})
            question["position_ids"] = places[..., split:]
        copied = copy.deepcopy(cache)
        for _ in range(2):
            torch.testing.assert_close(model(**question, past_key_values=cache).logits, expected, atol=2e-5, rtol=1e-4)
            assert cache.get_seq_length() == length
            cache.crop(split - length)
            assert cache.get_seq_length() == split
        torch.testing.assert_close(model(**question, past_key_values=copied).logits, expected, atol=2e-5, rtol=1e-4)


def test_packed_questions_with_a_4d_mask(models: dict[str, Any]) -> None:
    """Two questions in one row behind one picture, kept apart by an additive 4-D mask over the whole sequence."""
    model, inputs = models["llava"], llava_inputs([1], [2])
    prefix = inputs["input_ids"].shape[1]
    words = torch.tensor([[5, 6, 7, 8, 9]])  # questions (5 6) and (7 8 9)
    visible = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]).bool()
    mask = torch.zeros(1, 1, 5, prefix + 5).masked_fill(~torch.nn.functional.pad(visible, (prefix, 0), value=True), -1e30)
    positions = prefix + torch.tensor([[0, 1, 0, 1, 2]])
    with argus.attach(model, "fastervlm", keep=0.3), torch.no_grad():
        alone = []
        for part in (words[:, :2], words[:, 2:]):
            ids = torch.cat([inputs["input_ids"], part], 1)
            whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": inputs["pixel_values"]}
            alone.append(model(**whole).logits[:, prefix:])
        cache = model(**inputs, use_cache=True).past_key_values
        packed = model(input_ids=words, attention_mask=mask, position_ids=positions, past_key_values=cache).logits
    torch.testing.assert_close(packed, torch.cat(alone, 1), atol=2e-5, rtol=1e-4)


def test_a_second_picture_later_in_the_conversation(models: dict[str, Any], family: str) -> None:
    """Turn one has a picture, turn two another; each is cut when it comes, and positions go on from there."""
    model = models[family]
    two = FAMILIES[family].inputs([2], [3])
    ids = two["input_ids"][0].tolist()
    split = next(i for i in range(len(ids)) if ids[i] == IMAGE and ids[i + 1] != IMAGE) + 2
    with argus.attach(model, "fastervlm", keep=0.4) as attachment, torch.no_grad():
        expected = model(**two).logits[:, split:]
        gone = columns_gone(attachment, two, model)
        stay = [c - split for c in range(split, len(ids)) if c not in gone[0]]
        first, second = (FAMILIES[family].part(two, range(n, n + 1)) for n in (0, 1))
        extra: dict[str, Tensor] = {}
        if anatomy(model).mrope:
            places, _ = model.model.get_rope_index(two["input_ids"], two["mm_token_type_ids"], two["image_grid_thw"])
            extra = {"position_ids": places}
        cut = {k: v[..., :split] for k, v in extra.items()}
        cache = model(input_ids=two["input_ids"][:, :split], **first, **cut, use_cache=True).past_key_values
        rest = {k: v[..., split:] for k, v in extra.items()}
        later = model(input_ids=two["input_ids"][:, split:], **second, **rest, past_key_values=cache).logits
    torch.testing.assert_close(later[:, stay], expected[:, stay], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["fastervlm", "random"])
@pytest.mark.parametrize("name", ["internvl", "llava", "llava_onevision", "qwen2_5_vl"])
def test_chunked_prefill_of_generate(models: dict[str, Any], name: str, mode: str) -> None:
    """Pictures are encoded before the prompt is split; each is cut in the chunk that holds it."""
    model, inputs = models[name], FAMILIES[name].inputs([2], [8])
    ids = inputs["input_ids"][0].tolist()
    size = next(i for i in range(len(ids)) if ids[i] == IMAGE and ids[i + 1] != IMAGE) + 2  # behind the first picture
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True, **PLAIN}
    with argus.attach(model, mode, keep=0.4):
        whole = model.generate(**inputs, **options)
        parts = model.generate(**inputs, **options, prefill_chunk_size=size)
    assert torch.equal(whole.sequences, parts.sequences)
    torch.testing.assert_close(torch.stack(parts.logits), torch.stack(whole.logits), atol=2e-5, rtol=1e-4)


def test_a_chunk_that_vanishes(models: dict[str, Any]) -> None:
    """A chunk with nothing but a picture of which nothing is kept leaves no trace but its length."""
    model, inputs = models["llava"], llava_inputs([1], [4])
    ids = inputs["input_ids"]
    with argus.attach(model, "fastervlm", keep=0.0), torch.no_grad():
        expected = model(**inputs).logits[:, 38:]
        cache = model(input_ids=ids[:, :2], use_cache=True).past_key_values
        nothing = model(input_ids=ids[:, 2:38], pixel_values=inputs["pixel_values"], past_key_values=cache).logits
        assert not nothing.any()
        assert cache.get_seq_length() == 38
        torch.testing.assert_close(model(input_ids=ids[:, 38:], past_key_values=cache).logits, expected, atol=2e-5, rtol=1e-4)
