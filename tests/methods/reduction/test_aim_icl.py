"""AIM: demonstrations become virtual tokens, exactly those that a run on each alone and a linear map give."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import argus
from argus.core.errors import UnsupportedError
from argus.methods.learned import save_parts
from argus.model.anatomy import anatomy
from tests.methods.families import FAMILIES, IMAGE, PAD, llava, llava_inputs, single
from tests.methods.reducers import PLAIN


@pytest.fixture(params=sorted(FAMILIES))
def name(request: Any) -> str:
    return request.param


def trained(model: Any, file: Path, scale: float = 0.1) -> str:
    """A file of W and b as a training might leave them: the start and some noise."""
    with argus.attach(model, "aim_icl", projection="start") as attachment:
        parts = attachment.reducer.parts
        random = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for value in parts.parameters():
                value += scale * torch.randn(value.shape, generator=random)
        save_parts(parts, file)
    return str(file)


@torch.no_grad()
def brute_force(model: Any, inputs: dict[str, Tensor], parts: Any, layer: int | None = None) -> tuple[Tensor, list[Tensor]]:
    """Logits of one unpadded prompt whose demonstrations were replaced by hand, and the virtual tokens F_i of each."""
    anatomy_ = anatomy(model)
    decoder, ids = anatomy_.language_model, inputs["input_ids"]
    features = anatomy_.root.get_image_features(
        **{k: v for k, v in inputs.items() if k.startswith(("pixel", "image_", "batch_num"))}
    )
    features = getattr(features, "pooler_output", features)
    features = torch.cat([one.reshape(-1, one.shape[-1]) for one in features])
    visual = anatomy_.visual_mask(ids)
    embeds = anatomy_.root.get_input_embeddings()(ids).masked_scatter(visual[..., None], features)[0]
    if anatomy_.mrope:
        grids = {"image_grid_thw": inputs["image_grid_thw"]}
        positions, _ = anatomy_.root.get_rope_index(ids, mm_token_type_ids=visual.int(), **grids)
    else:
        positions = torch.arange(ids.shape[1])[None]
    marks = (58, 59) if anatomy_.mrope else ()  # around a picture, where the config names them
    seen = visual[0].tolist()
    starts = [c for c in range(len(seen)) if seen[c] and not seen[c - 1]]
    out, stay, virtual = embeds.clone(), torch.ones(len(seen), dtype=torch.bool), []
    for start, end in pairwise(starts):
        alone = positions[..., start:end] - positions[..., start : start + 1]
        run = decoder(inputs_embeds=embeds[None, start:end], position_ids=alone, output_hidden_states=True, use_cache=False)
        states = run.last_hidden_state if layer is None else run.hidden_states[layer]
        text = [c for c in range(start, end) if not seen[c] and ids[0, c] not in (1, 2, PAD, *marks)]
        fused = parts(F.rms_norm(states[0, [c - start for c in text]], states.shape[-1:]))
        out[text], virtual = fused, [*virtual, fused]
        stay[[c for c in range(start, end) if seen[c]]] = False
    positions = positions[..., stay] if anatomy_.mrope else torch.arange(int(stay.sum()))[None]
    return model.lm_head(decoder(inputs_embeds=out[None, stay], position_ids=positions).last_hidden_state)[0], virtual


def virtual_tokens(attachment: Any) -> list[Tensor]:
    """What the bank of an attachment holds, in the order in which it was read."""
    return list(attachment.reducer.bank.entries.values())


# -- what is left alone


def test_without_demonstrations_nothing_changes(name: str) -> None:
    """No picture, or one per prompt: logits and generated tokens are the base model's, bit for bit."""
    model = FAMILIES[name].model()
    for pictures in ([0, 0], [1, 1]):
        inputs = FAMILIES[name].inputs(pictures, [5, 3])
        with torch.no_grad():
            base = model(**inputs).logits
            tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False, **PLAIN)
            with argus.attach(model, "aim_icl", projection="start"):
                assert torch.equal(model(**inputs).logits, base)
                assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False, **PLAIN), tokens)


def test_keeping_everything_is_off(name: str) -> None:
    model, inputs = FAMILIES[name].model(), FAMILIES[name].inputs([3, 2], [5, 3])
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "aim_icl", projection="start", keep=1.0):
            assert torch.equal(model(**inputs).logits, base)
        with argus.attach(model, "aim_icl", projection="start"):
            assert not torch.equal(model(**inputs).logits, base)
        assert torch.equal(model(**inputs).logits, base)  # detached


# -- the equation


@pytest.mark.parametrize("layer", [None, 2])
def test_prompts_equal_those_made_by_hand(name: str, layer: int | None, tmp_path: Path) -> None:
    """Against one run on each demonstration by itself, slicing, and a prompt put together of what is left."""
    model, inputs = FAMILIES[name].model(), FAMILIES[name].inputs([3], [5])
    file = trained(model, tmp_path / "w.safetensors")
    with argus.attach(model, "aim_icl", weights=file, layer=layer) as attachment, torch.no_grad():
        logits = model(**inputs).logits[0]
        made = virtual_tokens(attachment)
        expected, virtual = brute_force(model, inputs, attachment.reducer.parts, layer)
    assert len(made) == len(virtual) == 2
    for one, other in zip(made, virtual, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    stay = logits.abs().sum(-1) > 0  # what left gives zeros
    assert int(stay.sum()) == len(expected)
    torch.testing.assert_close(logits[stay], expected, atol=5e-5, rtol=1e-4)


def test_padded_batches_equal_one_by_one(family: str, tmp_path: Path) -> None:
    """Items with two, no and one demonstration, decoded together through the cache."""
    model, pictures = FAMILIES[family].model(), [3, 1, 2]
    inputs = FAMILIES[family].inputs(pictures, [4, 9, 3])
    file = trained(model, tmp_path / "w.safetensors")
    how = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True, **PLAIN}
    with argus.attach(model, "aim_icl", weights=file, remember=0):
        together = model.generate(**inputs, **how)
        uncached = model.generate(**inputs, use_cache=False, **how)
        for item in range(3):
            alone = model.generate(**single(inputs, item, family, pictures), **how)
            for out in (together, uncached):
                assert out.sequences[item, -3:].tolist() == alone.sequences[0, -3:].tolist()
                for step in range(3):
                    torch.testing.assert_close(out.logits[step][item], alone.logits[step][0], atol=5e-5, rtol=1e-4)


def test_only_the_cache_of_the_prompt_is_written(family: str) -> None:
    """Runs on demonstrations leave no trace: the cache holds what is left of the prompt, and the token map is the prompt's."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([3], [5])
    visual = anatomy(model).visual_mask(inputs["input_ids"])[0]
    last = int((visual[1:] & ~visual[:-1]).nonzero()[-1]) + 1  # where the picture that is asked about begins
    with argus.attach(model, "aim_icl", projection="start"), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    left = inputs["input_ids"].shape[1] - int(visual[:last].sum())
    assert [layer.keys.shape[2] for layer in cache.layers] == [left] * 3
    assert cache.get_seq_length() == inputs["input_ids"].shape[1]
    if family == "argus":
        assert len(model.model.token_map) == inputs["input_ids"].shape[1]


def test_prompts_cost_their_text_whatever_the_pictures_size() -> None:
    """Demonstrations of 36 or of 144 visual tokens: the same positions; each adds its words where a real one adds 36 more."""
    lengths = {}
    for side in (24, 48):
        model = llava(side=side)
        for k in (0, 1, 2, 4):
            inputs = llava_inputs([k + 1], [4], side=side)
            with argus.attach(model, "aim_icl", projection="start"), torch.no_grad():
                cache = model(**inputs, use_cache=True).past_key_values
            size = (side // 4) ** 2
            lengths[side, k] = cache.layers[0].keys.shape[2] - size
            assert inputs["input_ids"].shape[1] - lengths[side, k] == size * (k + 1)
    assert [lengths[24, k] for k in (0, 1, 2, 4)] == [lengths[48, k] for k in (0, 1, 2, 4)] == [7, 8, 9, 11]


# -- what virtual tokens depend on


def test_virtual_tokens_show_the_picture_and_not_the_order(tmp_path: Path) -> None:
    """Another picture gives other ones; swapping two demonstrations swaps theirs and changes neither."""
    model, inputs = llava(), llava_inputs([3], [4])
    file = trained(model, tmp_path / "w.safetensors")
    ids, pixels = inputs["input_ids"], inputs["pixel_values"]
    a, b = (slice(2, 39), slice(39, 76))  # 36 visual tokens and a word each
    swapped = {**inputs, "input_ids": torch.cat([ids[:, :2], ids[:, b], ids[:, a], ids[:, 76:]], 1)}
    swapped["pixel_values"] = pixels[[1, 0, 2]]
    other = {**inputs, "pixel_values": torch.cat([pixels[:1] + 1, pixels[1:]])}
    asked = {**inputs, "pixel_values": torch.cat([pixels[:2], pixels[2:] + 1])}
    found = []
    for given in (inputs, swapped, other, asked):
        with argus.attach(model, "aim_icl", weights=file) as attachment, torch.no_grad():
            model(**given)
            found.append(virtual_tokens(attachment))
    (first, second), (second_, first_), (changed, same), (first__, second__) = found
    assert torch.equal(first, first_)
    assert torch.equal(second, second_)
    assert not torch.allclose(first, changed, atol=1e-3)
    assert torch.equal(second, same)
    assert torch.equal(first, first__)
    assert torch.equal(second, second__)


def test_special_tokens_stay_as_separators() -> None:
    """The text behind the first picture: a word, an end of turn (2), a word named as separator."""
    model, inputs = llava(), llava_inputs([2], [4])
    ids = inputs["input_ids"]
    text = torch.tensor([[7, 2, 9]])
    inputs["input_ids"] = torch.cat([ids[:, :38], text, ids[:, 39:]], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    seen: list[Tensor] = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    for separators, replaced in (((), [38, 40]), ((9,), [38])):
        with argus.attach(model, "aim_icl", projection="start", separators=separators, apply="mask"), torch.no_grad():
            model(**inputs)
        words = model.get_input_embeddings()(inputs["input_ids"])
        text_columns = [c for c in range(words.shape[1]) if inputs["input_ids"][0, c] != IMAGE]
        changed = [c for c in text_columns if not torch.equal(words[0, c], seen[-1][0, c])]
        assert changed == replaced
    hook.remove()


def test_visual_tokens_may_stay_beside_them() -> None:
    model, inputs = llava(), llava_inputs([3], [4])
    with argus.attach(model, "aim_icl", projection="start", keep=0.25) as attachment, torch.no_grad():
        model(**inputs)
    assert [len(kept.indices) for kept in attachment.kept] == [9, 9, 36]


def test_demonstrations_are_read_through_a_token_reducer() -> None:
    """FasterVLM first: the demonstration is read as if it had only the tokens that were left of its picture."""
    model, inputs = llava(), llava_inputs([2], [4])
    lengths: list[int] = []
    with argus.attach(model, "fastervlm", keep=0.25), argus.attach(model, "aim_icl", projection="start") as attachment:
        layer = model.model.language_model.layers[1]
        hook = layer.register_forward_pre_hook(lambda m, args: lengths.append(args[0].shape[1]))
        model(**inputs)
        hook.remove()
    assert lengths == [9 + 1, inputs["input_ids"].shape[1] - 72 + 9]
    assert [(kept.before, len(kept.indices)) for kept in attachment.kept] == [(9, 0), (9, 9)]


# -- the bank


def counted(model: Any) -> tuple[list[int], Callable[[], None]]:
    """Rows of each run of the language model's first layer, until the function is called."""
    rows: list[int] = []
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    return rows, hook.remove


@pytest.mark.parametrize("folder", [False, True])
def test_a_demonstration_is_read_once(name: str, folder: bool, tmp_path: Path) -> None:
    """What the bank gives equals what is computed anew, bit for bit; with a folder, also in another process, in fp16."""
    model, inputs = FAMILIES[name].model(), FAMILIES[name].inputs([3], [5])
    options = {"weights": trained(model, tmp_path / "w.safetensors"), **({"bank": tmp_path / "bank"} if folder else {})}
    rows, stop = counted(model)
    with argus.attach(model, "aim_icl", **options) as attachment, torch.no_grad():
        first, again = model(**inputs).logits, model(**inputs).logits
        attachment.reducer.bank.entries.clear()
        anew = model(**inputs).logits
    stop()
    assert torch.equal(first, again)
    assert torch.equal(first, anew)
    assert rows == ([2, 1, 1, 1] if folder else [2, 1, 1, 2, 1])
    if folder:
        with argus.attach(model, "aim_icl", **options), torch.no_grad():
            assert torch.equal(model(**inputs).logits, first)
        assert len(list((tmp_path / "bank").glob("*.safetensors"))) == 2


def test_only_what_is_missing_is_read() -> None:
    model, two, three = llava(), llava_inputs([2], [4]), llava_inputs([3], [4])
    three["pixel_values"][:1] = two["pixel_values"][:1]
    three["input_ids"][:, :39] = two["input_ids"][:, :39]
    rows, stop = counted(model)
    with argus.attach(model, "aim_icl", projection="start", remember=2) as attachment, torch.no_grad():
        model(**two)
        model(**three)
        assert len(virtual_tokens(attachment)) == 2
    stop()
    assert rows == [1, 1, 1, 1]  # each time one demonstration is new


def test_other_weights_find_nothing() -> None:
    """A merged adapter, a tuned model: what the old weights read is not what the new ones would."""
    model, inputs = llava(), llava_inputs([2], [4])
    rows, stop = counted(model)
    with argus.attach(model, "aim_icl", projection="start"), torch.no_grad():
        model(**inputs)
        model.model.language_model.layers[1].mlp.up_proj.weight.mul_(1.01)
        model(**inputs)
    stop()
    assert rows == [1, 1, 1, 1]


# -- options


def test_trained_parts_are_needed_or_their_start_is_asked_for() -> None:
    with pytest.raises(UnsupportedError, match="trained before"):
        argus.attach(llava(), "aim_icl")
    with pytest.raises(UnsupportedError, match="only 3 layers"):
        argus.attach(llava(), "aim_icl", projection="start", layer=4)


def test_virtual_tokens_start_as_long_as_words() -> None:
    model, inputs = llava(), llava_inputs([3], [4])
    with argus.attach(model, "aim_icl", projection="start") as attachment, torch.no_grad():
        model(**inputs)
        lengths = torch.cat(virtual_tokens(attachment)).norm(dim=-1)
    mean = model.get_input_embeddings().weight.norm(dim=1).mean()
    torch.testing.assert_close(lengths, mean.expand_as(lengths), atol=1e-4, rtol=1e-4)


def test_half_precision(family: str) -> None:
    model = FAMILIES[family].model().to(torch.bfloat16)
    inputs = FAMILIES[family].inputs([2, 3], [4, 5])
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    with argus.attach(model, "aim_icl", projection="start"), torch.no_grad():
        logits = model(**inputs).logits
    assert logits.dtype == torch.bfloat16
    assert bool(logits.isfinite().all())
