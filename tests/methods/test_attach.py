"""What every reducer promises on every family: exact no-op, exact cutting, exact caching, exact detaching."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

import argus
from argus.core.errors import RecipeError, UnknownNameError, UnsupportedError
from argus.core.registry import components
from argus.methods.learned import LearnedReducer
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, IMAGE, PAD, cast, llava, llava_inputs, qwen, qwen2, qwen_inputs, single

# YOPO keeps all tokens and cuts what is computed for them, and trained choices need their weights: their tests are their own.
REDUCERS = [c.name for c in components("reducer") if c.name != "yopo" and not issubclass(c.load(), LearnedReducer)]
IN_LLM = ("fastv", "gsearch")  # ranked by the language model's attention, with one budget per prompt
PLAIN = {"eos_token_id": None, "suppress_tokens": [IMAGE]}  # no early end, no placeholder out of a random model
DTYPES = [torch.float32, torch.bfloat16]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=REDUCERS)
def reducer(request: Any) -> str:
    return request.param


def renumbered(reducer: str) -> set[int]:
    """Layers in front of which a reducer renumbers survivors by default."""
    return {0} if reducer in ("fastervlm", "fopru", "random") else set()


def greedy(model: Any, inputs: dict[str, Tensor], steps: int) -> tuple[list[int], list[Tensor]]:
    """Greedy tokens of one item and the logits that chose them, through the KV cache."""
    out = model.generate(
        **inputs,
        max_new_tokens=steps,
        do_sample=False,
        **PLAIN,
        pad_token_id=PAD,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0, inputs["input_ids"].shape[1] :].tolist(), [row[0] for row in out.logits]


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


def _hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


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


# -- equal to physically cutting the sequence


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


# -- together, in training, and refused


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


def test_text_alone_passes_untouched(models: dict[str, Any], reducer: str) -> None:
    model, ids = models["llava"], torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        base = model(input_ids=ids).logits
        with argus.attach(model, reducer, keep=0.1) as attachment:
            assert torch.equal(model(input_ids=ids).logits, base)
            assert attachment.kept == []


def test_adapters_are_looked_through(reducer: str) -> None:
    from peft import LoraConfig, get_peft_model

    model, inputs = llava(), llava_inputs([1], [4])
    with argus.attach(model, reducer, keep=0.4), torch.no_grad():
        expected = model(**inputs).logits
    wrapped = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=True, r=2)).eval()
    with argus.attach(wrapped, reducer, keep=0.4), torch.no_grad():
        torch.testing.assert_close(wrapped(**inputs).logits, expected)


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


def test_qwen_keeps_grid_positions() -> None:
    """mRoPE models keep row and column of every survivor, whatever `positions` says."""
    model, inputs = qwen(), qwen_inputs([1], [5])
    results = []
    for positions in ("consecutive", "original"):
        with argus.attach(model, "fastervlm", keep=0.5, positions=positions), torch.no_grad():
            results.append(model(**inputs).logits)
    assert torch.equal(*results)


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


@pytest.fixture
def flash() -> Iterator[str]:
    """A kernel with the conventions of flash attention: no mask or (B, K) padding, causal, queries aligned to the end."""

    def kernel(module, query, key, value, attention_mask, scaling=None, **kwargs):  # type: ignore[no-untyped-def]
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        out = torch.zeros_like(query)
        for b in range(len(query)):  # as if unpadded: every item alone, without its padding
            keys = torch.ones(key.shape[2], dtype=torch.bool) if attention_mask is None else attention_mask[b].bool()
            queries = keys[-query.shape[2] :]
            q, k, v = query[b][:, queries], key[b][:, keys], value[b][:, keys]
            causal = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
            weights = (q @ k.transpose(-1, -2) * scaling).masked_fill(~causal, float("-inf")).softmax(-1)
            out[b][:, queries] = weights @ v
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("test_flash", kernel)
    AttentionMaskInterface.register("test_flash", flash_attention_mask)
    yield "test_flash"
    del AttentionInterface._global_mapping["test_flash"], AttentionMaskInterface._global_mapping["test_flash"]


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
