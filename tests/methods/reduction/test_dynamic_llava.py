"""Dynamic-LLaVA: trained predictors choose the visual tokens of a prompt and the generated tokens that the cache keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import argus
from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.methods.learned import save_parts
from argus.model.anatomy import anatomy
from tests.methods.anyres import llava_next, next_inputs
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, PAD, cast, llava, llava_inputs, single
from tests.methods.reducers import PLAIN
from tests.methods.reduction.test_dynamic_predictors import SIZES, predictors

LAYER = 1
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: Any) -> dict[str, Any]:
    """Options of the reducer with weights."""
    file = tmp_path_factory.mktemp("parts") / "dynamic_llava.safetensors"
    save_parts(predictors(), file)
    return {"weights": str(file), "layer": LAYER, **SIZES}


def any_of(batch: int, ids: Tensor) -> list[int]:
    """Four tokens that may come next, so that a random model does not repeat itself."""
    return [(7 * int(ids[-1]) + 11 * k) % 47 + 3 for k in range(4)]


def written(model: Any, inputs: dict[str, Tensor], steps: int = 8, **options: Any) -> Any:
    """Greedy answers with the logits that chose them, and the cache."""
    return model.generate(
        **inputs,
        max_new_tokens=steps,
        do_sample=False,
        **PLAIN,
        pad_token_id=PAD,
        prefix_allowed_tokens_fn=any_of,
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )


@torch.no_grad()
def decided(model: Any, inputs: dict[str, Tensor], tokens: list[int]) -> list[bool]:
    """What the text predictor says of generated tokens: layers before `LAYER` see everything, so the bare model knows."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    more = {k: v for k, v in inputs.items() if k.startswith(("pixel", "image_", "batch_num"))}
    if "mm_token_type_ids" in inputs:
        more["mm_token_type_ids"] = F.pad(inputs["mm_token_type_ids"], (0, len(tokens)))
    states = model(input_ids=ids, **more, output_hidden_states=True).hidden_states[LAYER][0, inputs["input_ids"].shape[1] :]
    logits = predictors().text(states)
    return (logits[:, 0] > logits[:, 1]).tolist()


# -- the no-op state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cached", [True, False])
def test_keep_rates_of_one_are_the_base_model(family: str, trained: dict[str, Any], cached: bool, dtype: torch.dtype) -> None:
    model, inputs = FAMILIES[family].model().to(dtype), cast(FAMILIES[family].inputs([1, 2], [4, 7]), dtype)
    with torch.no_grad():
        base, answer = model(**inputs).logits, written(model, inputs, 4, use_cache=cached)
        with argus.attach(model, "dynamic_llava", keep=1.0, keep_text=1.0, **trained):
            assert torch.equal(model(**inputs).logits, base)
            assert torch.equal(torch.stack(written(model, inputs, 4, use_cache=cached).logits), torch.stack(answer.logits))


@pytest.mark.parametrize("cached", [True, False])
def test_decisions_that_keep_everything_are_the_base_model(tmp_path: Path, family: str, cached: bool) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 7])
    save_parts(predictors(bias=1e4), tmp_path / "all.safetensors")
    base = written(model, inputs, 4, use_cache=cached)
    with argus.attach(model, "dynamic_llava", keep=1.0, weights=str(tmp_path / "all.safetensors"), layer=LAYER, **SIZES):
        answer = written(model, inputs, 4, use_cache=cached)
    assert torch.equal(torch.stack(answer.logits), torch.stack(base.logits))


# -- what is computed


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cached", [True, False])
def test_decoding_equals_the_slow_way(family: str, trained: dict[str, Any], attention: str, cached: bool) -> None:
    """Tokens the predictor drops are seen by themselves alone from layer l on; everyone keeps the true position."""
    model, inputs = FAMILIES[family].model(attention), FAMILIES[family].inputs([2], [5])
    prompt = inputs["input_ids"].shape[1]
    with argus.attach(model, "dynamic_llava", keep=0.3, **trained) as attachment:
        answer = written(model, inputs, use_cache=cached)
        gone = columns_gone(attachment, inputs, model)
    tokens = answer.sequences[0, prompt:].tolist()
    kept = decided(model, inputs, tokens[:-1])
    assert 0 < sum(kept) < len(kept)
    dropped = {prompt + i for i, keep in enumerate(kept) if not keep}
    expected, columns = logits_with(model, inputs, gone, tokens[:-1], unseen={LAYER: dropped})
    for step, logits in enumerate(answer.logits):
        torch.testing.assert_close(logits[0], expected[columns.index(prompt - 1 + step)], atol=5e-5, rtol=1e-4)


def test_images_keep_the_best_of_each_picture(plain: str, trained: dict[str, Any]) -> None:
    """int(keep N) tokens with the greatest log p(keep), each picture compared with itself alone."""
    model, inputs = FAMILIES[plain].model(), FAMILIES[plain].inputs([1, 2], [4, 7])
    with torch.no_grad(), argus.attach(model, "dynamic_llava", keep=0.3, **trained) as attachment:
        states = model(**inputs, output_hidden_states=True).hidden_states[LAYER]
    tokens = anatomy(model).visual_tokens(inputs)
    for number, (kept, crop) in enumerate(zip(attachment.kept, tokens.crops, strict=True)):
        own = tokens.crop == number
        mine = states[crop.item, tokens.column[own]][None]  # (1, N, D)
        size = mine.shape[1]
        scores = predictors().image(mine, torch.ones(1, size, 1)).double().log_softmax(-1)[0, :, 0]
        assert kept.indices.tolist() == sorted(scores.argsort(descending=True)[: int(size * 0.3)].tolist())


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_batch_with_padding_equals_one_by_one(family: str, trained: dict[str, Any], attention: str, cached: bool) -> None:
    """Each item forgets its own tokens, so that caches of one batch have different lengths."""
    model, pictures = FAMILIES[family].model(attention), [1, 2, 1]
    batch = FAMILIES[family].inputs(pictures, [9, 3, 4])
    with argus.attach(model, "dynamic_llava", keep=0.35, **trained):
        together = written(model, batch, use_cache=cached)
        for item in range(3):
            alone = written(model, single(batch, item, family, pictures), use_cache=cached)
            assert together.sequences[item, -8:].tolist() == alone.sequences[0, -8:].tolist()
            for step in range(8):
                torch.testing.assert_close(together.logits[step][item], alone.logits[step][0], atol=5e-5, rtol=1e-4)


def test_tiles_of_a_picture_are_one_budget(trained: dict[str, Any]) -> None:
    """LLaVA-NeXT: a view and its tiles are ranked together; both ways of decoding agree."""
    model, inputs = llava_next(), next_inputs([[(24, 48)], [(30, 48), (24, 48)]], [4, 7])
    tokens = anatomy(model).visual_tokens(inputs)
    with argus.attach(model, "dynamic_llava", keep=0.3, **trained) as attachment:
        answers = [written(model, inputs, 6, use_cache=cached) for cached in (True, False)]
        kept: dict[tuple[int, int], int] = {}
        for one in attachment.kept:
            kept[one.item, one.image] = kept.get((one.item, one.image), 0) + len(one.indices)
    flat, tall = 36 + 72, 36 + 96
    assert len(tokens) == 2 * flat + tall
    assert kept == {(0, 0): int(0.3 * flat), (1, 0): int(0.3 * tall), (1, 1): int(0.3 * flat)}
    assert torch.equal(answers[0].sequences, answers[1].sequences)
    with_cache, without = (torch.stack(a.logits) for a in answers)
    torch.testing.assert_close(with_cache, without, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_masking_equals_dropping(models: dict[str, Any], family: str, trained: dict[str, Any], cached: bool) -> None:
    model, inputs, logits = models[family], FAMILIES[family].inputs([1, 2], [5, 3]), []
    for apply in ("drop", "mask"):
        with argus.attach(model, "dynamic_llava", keep=0.4, apply=apply, **trained):
            logits.append(torch.stack(written(model, inputs, 6, use_cache=cached).logits))
    torch.testing.assert_close(logits[0], logits[1], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_beams(family: str, trained: dict[str, Any], cached: bool) -> None:
    """Beams forget different tokens and swap what they hold; the best one's score is that of its tokens, recomputed."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [5])
    prompt, beams = inputs["input_ids"].shape[1], {"num_beams": 3, "output_scores": True, "length_penalty": 0.0}
    with argus.attach(model, "dynamic_llava", keep=0.4, **trained) as attachment:
        out = written(model, inputs, 6, use_cache=cached, **beams)
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
        gone = columns_gone(attachment, inputs, model)
    tokens = out.sequences[0, prompt:].tolist()
    dropped = {prompt + i for i, keep in enumerate(decided(model, inputs, tokens)) if not keep}
    logits, columns = logits_with(model, inputs, gone, tokens, unseen={LAYER: dropped})
    log_p = logits[columns.index(prompt - 1) :].log_softmax(-1)
    total = sum(log_p[i, t] for i, t in enumerate(tokens))
    torch.testing.assert_close(out.sequences_scores[0], total, atol=2e-4, rtol=1e-4)


def test_kernels_that_take_padding_masks(flash: str, trained: dict[str, Any]) -> None:
    inputs, out = llava_inputs([1, 2, 1], [5, 3, 4]), []
    for attention in ("sdpa", flash):
        model = llava()
        model.model.language_model.config._attn_implementation = attention
        with argus.attach(model, "dynamic_llava", keep=0.4, **trained):
            out.append(torch.stack(written(model, inputs).logits))
    torch.testing.assert_close(out[0], out[1], atol=5e-5, rtol=1e-4)


def test_text_alone(models: dict[str, Any], trained: dict[str, Any]) -> None:
    """Without a picture the prompt passes untouched; what is generated is decided about, with a cache and without."""
    model, inputs = models["llava"], {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()}
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "dynamic_llava", **trained) as attachment:
            assert torch.equal(model(**inputs).logits, base)
            assert attachment.kept == []
            with_cache, without = (torch.stack(written(model, inputs, use_cache=c).logits) for c in (True, False))
    torch.testing.assert_close(with_cache, without, atol=5e-5, rtol=1e-4)
    assert not torch.equal(torch.stack(written(model, inputs).logits), with_cache)


def test_a_lot_instead_of_the_image_predictor(models: dict[str, Any], trained: dict[str, Any]) -> None:
    model, inputs, chosen = models["llava"], llava_inputs([1], [4]), []
    for options in ({}, {"lot": True}, {"lot": True}, {"lot": True, "seed": 1}):
        with argus.attach(model, "dynamic_llava", keep=0.3, **options, **trained) as attachment, torch.no_grad():
            model(**inputs)
            chosen.append(attachment.kept[0].indices.tolist())
    assert [len(c) for c in chosen] == [10] * 4
    assert chosen[0] != chosen[1] == chosen[2] != chosen[3]


# -- the cache


def test_cache_lengths(family: str, trained: dict[str, Any]) -> None:
    """S prompt tokens, N of them visual, and t generated ones that were fed: layers before l hold S + t, later ones
    S - N + K + as many generated ones as were kept. To everyone outside all have the same length."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [5])
    prompt = inputs["input_ids"].shape[1]
    with argus.attach(model, "dynamic_llava", keep=0.3, **trained) as attachment:
        answer = written(model, inputs, 9)
        gone = columns_gone(attachment, inputs, model)[LAYER]
    tokens = answer.sequences[0, prompt:].tolist()
    kept = decided(model, inputs, tokens[:-1])
    lengths = [layer.keys.shape[2] for layer in answer.past_key_values.layers]
    late = prompt - len(gone) + sum(kept)
    assert attachment.counts[0].kept == int(0.3 * attachment.counts[0].total)
    assert lengths == [prompt + 8, late, late]
    assert [answer.past_key_values.get_seq_length(i) for i in range(3)] == [prompt + 8] * 3
    held = answer.past_key_values.layers[2].layout.columns[0]
    assert held[held >= prompt].tolist() == [prompt + i for i, keep in enumerate(kept) if keep]


def test_a_batch_is_as_long_as_its_longest_item(trained: dict[str, Any]) -> None:
    model, batch = llava(), llava_inputs([1, 1, 1], [4, 4, 4])
    with argus.attach(model, "dynamic_llava", keep=0.3, **trained):
        answer = written(model, batch, 9)
    late, prompt = answer.past_key_values.layers[2], batch["input_ids"].shape[1]
    own = [sum(decided(model, single(batch, i, "llava", [1, 1, 1]), answer.sequences[i, prompt:-1].tolist())) for i in range(3)]
    assert len(set(own)) > 1
    assert (late.layout.columns >= prompt).sum(1).tolist() == own
    assert late.keys.shape[2] == prompt - 36 + 10 + max(own)


def test_several_tokens_behind_a_cache_are_a_prompt(models: dict[str, Any], trained: dict[str, Any]) -> None:
    """The next question of a dialogue is kept as a whole."""
    model, inputs = models["llava"], llava_inputs([1], [4])
    with argus.attach(model, "dynamic_llava", keep=0.3, **trained), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        before = cache.layers[2].keys.shape[2]
        model(input_ids=torch.tensor([[5, 6, 7, 8]]), past_key_values=cache)
        assert cache.layers[2].keys.shape[2] == before + 4


# -- refused


def test_refusals(tmp_path: Path, models: dict[str, Any], trained: dict[str, Any]) -> None:
    model = models["llava"]
    with pytest.raises(UnsupportedError, match="have to be trained before"):
        argus.attach(model, "dynamic_llava")
    with pytest.raises(UnsupportedError, match="only 3 layers"):
        argus.attach(model, "dynamic_llava", **{**trained, "layer": 3})
    with pytest.raises(RecipeError, match="must divide width"):
        argus.attach(model, "dynamic_llava", width=16, heads=3)
    with pytest.raises(ModelError, match="do not fit the model"):
        argus.attach(model, "dynamic_llava", **{**trained, "width": 32})
    assert isinstance(model, nn.Module)
    assert not model.model.language_model.layers[0]._forward_pre_hooks
