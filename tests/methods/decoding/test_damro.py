"""DAMRO against the slow way: attention maps from hooked projections, both branches without a cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import argus
from argus.core.errors import UnsupportedError
from argus.methods.decoding.contrastive import combine
from argus.model.anatomy import anatomy
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.vit import ViTConfig
from tests.methods.anyres import llava_next, next_inputs
from tests.methods.families import FAMILIES, cast, llava, llava_inputs
from tests.methods.tiny import IMAGE, llama, made, padded

K = 4
PLAIN: dict[str, Any] = {"pad_token_id": 0, "do_sample": False, "eos_token_id": None}


def hooked_scores(model: Any, pixels: Tensor, head_mode: str) -> Tensor:
    """(pictures, N) CLS row of softmax(Q K^T / sqrt(width)) from the projections of the block that made the features."""
    parts, seen = anatomy(model), {}

    def keep(name: str) -> Any:
        return lambda module, args, output: seen.__setitem__(name, output)

    if parts.family == "argus":
        block = model.model.vision_tower.blocks[-2]
        handles, heads = [block.qkv.register_forward_hook(keep("qkv"))], block.heads
    else:
        attention = model.model.vision_tower.encoder.layers[-2].self_attn
        handles = [getattr(attention, f"{n}_proj").register_forward_hook(keep(n)) for n in "qk"]
        heads = attention.num_heads
    with torch.no_grad():
        model.model.get_image_features(pixels)
    for handle in handles:
        handle.remove()
    q, k = seen["qkv"].chunk(3, -1)[:2] if "qkv" in seen else (seen["q"], seen["k"])  # (B, 1 + N, C)
    count = 1 if head_mode == "single" else heads
    q, k = (x.unflatten(-1, (count, -1)).transpose(1, 2) for x in (q, k))
    maps = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)  # (B, h, 1 + N, 1 + N)
    return maps.mean(1)[:, 0, 1:]


@pytest.mark.parametrize("head_mode", ["single", "mean"])
@pytest.mark.parametrize("name", ["argus", "llava"])
def test_outliers_are_the_greatest_of_the_cls_row(models: dict[str, Any], name: str, head_mode: str) -> None:
    """In falling order of attention, per picture."""
    model, inputs = models[name], llava_inputs([1, 2], [4, 6])
    expected = hooked_scores(model, inputs["pixel_values"], head_mode).topk(K, -1).indices.tolist()
    with argus.attach(model, "damro", tokens=K, head_mode=head_mode) as attachment:
        model.generate(**inputs, max_new_tokens=1, **PLAIN)
        assert [k.indices.tolist() for k in attachment.shown] == expected
        assert [(k.item, k.image) for k in attachment.shown] == [(0, 0), (1, 0), (1, 1)]
        assert not attachment.kept  # nothing is dropped


def test_encoders_without_cls_use_received_attention() -> None:
    """Mean over all queries of the joint head's map; or a refusal."""
    model, inputs = llava(encoder="siglip"), llava_inputs([1], [4])
    seen: dict[str, Tensor] = {}
    attention = model.model.vision_tower.encoder.layers[-2].self_attn
    for n in "qk":
        getattr(attention, f"{n}_proj").register_forward_hook(lambda m, a, output, n=n: seen.__setitem__(n, output))
    with argus.attach(model, "damro", tokens=K) as attachment:
        model.generate(**inputs, max_new_tokens=1, **PLAIN)
    maps = (seen["q"] @ seen["k"].transpose(-1, -2) / math.sqrt(seen["q"].shape[-1])).softmax(-1)
    assert attachment.shown[0].indices.tolist() == maps.mean(1)[0].topk(K).indices.tolist()
    with pytest.raises(UnsupportedError, match="has no CLS token"):
        argus.attach(model, "damro", without_cls="error")


@torch.no_grad()
def plain_logits(model: Any, inputs: dict[str, Tensor], more: list[int], order: list[int] | None = None) -> Tensor:
    """(V,) logits behind one unpadded prompt and the tokens `more`, without a cache; of the columns `order` alone where given."""
    parts = anatomy(model)
    ids = torch.cat([inputs["input_ids"], torch.tensor([more], dtype=torch.long)], dim=1)
    embeddings = parts.root.get_input_embeddings()(ids)
    pictures = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask", "mm_token_type_ids")}
    features = parts.root.get_image_features(**pictures)
    features = torch.cat(list(getattr(features, "pooler_output", features)))
    visual = torch.nn.functional.pad(parts.visual_mask(inputs["input_ids"]), (0, len(more)))
    embeddings = embeddings.masked_scatter(visual[..., None], features.to(embeddings.dtype))
    columns = list(range(ids.shape[1])) if order is None else [*order, *range(ids.shape[1] - len(more), ids.shape[1])]
    positions = torch.arange(len(columns))[None]
    if parts.mrope:
        grids = {k: v for k, v in inputs.items() if k.endswith("grid_thw")}
        positions = parts.root.get_rope_index(ids, mm_token_type_ids=visual.int(), **grids)[0][..., columns]
    hidden = parts.language_model(inputs_embeds=embeddings[:, columns], position_ids=positions, use_cache=False)
    return model.lm_head(hidden.last_hidden_state[0, -1])


def negative_columns(model: Any, inputs: dict[str, Tensor], shown: list[Any]) -> list[int]:
    """The columns of one prompt that the negative branch reads, in its order: text, and of each crop what was shown."""
    tokens = anatomy(model).visual_tokens(inputs)
    gone = set(tokens.column.tolist())
    if tokens.breaks is not None:
        breaks, visual = tokens.breaks[:, 1].tolist(), set(tokens.column.tolist())
        gone |= {c for c in breaks if c + 1 in visual or c + 1 in breaks}  # all but the one behind the picture
    starts = {}
    for number, entry in enumerate(shown):
        own = tokens.crop == number
        where = dict(zip(tokens.cell[own].tolist(), tokens.column[own].tolist(), strict=True))
        starts[min(where.values())] = [where[cell] for cell in entry.indices.tolist()]
    columns: list[int] = []
    for column in range(inputs["input_ids"].shape[1]):
        columns += starts.get(column, [])
        columns += [] if column in gone else [column]
    return columns


def one_prompt(name: str) -> tuple[Any, dict[str, Tensor]]:
    if name == "llava_next":
        return llava_next(), next_inputs([[(30, 48), (24, 48)]], [5])
    return FAMILIES[name].model(), FAMILIES[name].inputs([2], [5])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_two_caches_equal_no_cache(name: str) -> None:
    """Every step's scores are those of two full forward passes."""
    model, inputs = one_prompt(name)
    with argus.attach(model, "damro", tokens=K, alpha=1.5, beta=0.05) as attachment:
        out = model.generate(**inputs, max_new_tokens=5, output_scores=True, return_dict_in_generate=True, **PLAIN)
    new = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    order = negative_columns(model, inputs, attachment.shown)
    for step, scores in enumerate(out.scores):
        main, other = plain_logits(model, inputs, new[:step]), plain_logits(model, inputs, new[:step], order)
        torch.testing.assert_close(scores[0], combine(main, other, 1.5, 0.05), atol=1e-4, rtol=1e-4)


def test_tiles_give_their_outliers_one_after_the_other() -> None:
    """LLaVA-NeXT: K of each crop and one line break behind each picture."""
    model, inputs = llava_next(), next_inputs([[(24, 48)], [(30, 48), (24, 48)]], [4, 6])
    with argus.attach(model, "damro", tokens=K) as attachment:
        model.generate(**inputs, max_new_tokens=1, **PLAIN)
        real = attachment._negative.real
    assert [len(k.indices) for k in attachment.shown] == [K] * (3 + 5 + 3)
    text = [1 + 1 + 4, 1 + 2 + 6]
    assert real.sum(1).tolist() == [text[0] + 3 * K + 1, text[1] + (5 + 3) * K + 2]


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_batch_with_padding_decodes_as_its_items_do(models: dict[str, Any], family: str, how: dict[str, Any]) -> None:
    model, make = models[family], FAMILIES[family].inputs
    inputs = make([1, 2, 1], [4, 6, 3])
    with argus.attach(model, "damro", tokens=K, alpha=1.0):
        together = model.generate(**inputs, max_new_tokens=4, **PLAIN, **how)[:, inputs["input_ids"].shape[1] :]
        for item, row in enumerate(together):
            single = make([1, 2, 1][: item + 1], [4, 6, 3][: item + 1])
            alone = model.generate(**single, max_new_tokens=4, **PLAIN, **how)[-1, single["input_ids"].shape[1] :]
            assert torch.equal(alone, row)


def test_the_branch_follows_its_beams() -> None:
    """The score of a beam is the sum of its tokens' contrasted log-probabilities, computed anew without a cache.

    Both items ask the same text about different pictures, so rows cannot be told apart by their tokens alone.
    """
    model, inputs = llava(), llava_inputs([1], [5])
    other = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    both = {"input_ids": inputs["input_ids"].expand(2, -1), "attention_mask": inputs["attention_mask"].expand(2, -1)}
    both["pixel_values"] = torch.cat([inputs["pixel_values"], other])
    options = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "max_new_tokens": 4}
    with argus.attach(model, "damro", tokens=K, alpha=1.0, beta=0.0) as attachment:
        out = model.generate(**both, **options, **PLAIN, return_dict_in_generate=True, output_scores=True)
        shown = [next(k for k in attachment.shown if k.item == 4 * item) for item in range(2)]  # beams are rows of their own
    for row, (sequence, score) in enumerate(zip(out.sequences, out.sequences_scores.tolist(), strict=True)):
        single = {**inputs, "pixel_values": both["pixel_values"][row // 4][None]}
        new = sequence[inputs["input_ids"].shape[1] :].tolist()
        order = negative_columns(model, single, [shown[row // 4]])
        total = 0.0
        for step, token in enumerate(new):
            main, less = plain_logits(model, single, new[:step]), plain_logits(model, single, new[:step], order)
            total += float(combine(main, less, 1.0, 0.0).log_softmax(-1)[token])
        assert score == pytest.approx(total, abs=1e-3)


def test_sampling_draws_from_the_contrasted_distribution(models: dict[str, Any]) -> None:
    """Temperature 1 and no other warper: what is sampled has the frequencies of softmax(z_cd)."""
    model, inputs = models["llava"], llava_inputs([1], [5])
    options = {"max_new_tokens": 1, "pad_token_id": 0, "eos_token_id": None}
    with argus.attach(model, "damro", tokens=K, alpha=0.5):
        greedy = model.generate(**inputs, **options, do_sample=False, output_scores=True, return_dict_in_generate=True)
        torch.manual_seed(0)
        drawn = model.generate(**inputs, **options, do_sample=True, top_k=0, num_return_sequences=2000)[:, -1]
    expected = greedy.scores[0][0].softmax(-1)
    found = torch.bincount(drawn, minlength=len(expected)) / len(drawn)
    assert float((found - expected).abs().max()) < 0.04
    assert not found[expected == 0].any()


def test_the_lot_is_the_pictures(models: dict[str, Any]) -> None:
    """`select: random` shows the same patches of a picture in every batch, other ones for another seed, and not the outliers."""
    model = models["llava"]
    first, second = llava_inputs([1], [4]), llava_inputs([1, 1], [4, 6])

    def drawn(inputs: dict[str, Tensor], **options: Any) -> list[list[int]]:
        with argus.attach(model, "damro", tokens=K, **options) as attachment:
            model.generate(**inputs, max_new_tokens=1, **PLAIN)
        return [k.indices.tolist() for k in attachment.shown]

    assert drawn(first, select="random") == drawn(second, select="random")[:1]
    assert len({tuple(row) for row in (*drawn(second, select="random"), *drawn(first, select="random", seed=1))}) == 3
    assert drawn(first, select="random") != drawn(first)


def test_no_patch_at_all_is_a_branch_without_the_picture(models: dict[str, Any]) -> None:
    model, inputs = models["llava"], llava_inputs([1], [5])
    with argus.attach(model, "damro", tokens=0, alpha=1.0, beta=0.0):
        out = model.generate(**inputs, max_new_tokens=1, output_scores=True, return_dict_in_generate=True, **PLAIN)
    text = [c for c, i in enumerate(inputs["input_ids"][0].tolist()) if i != model.config.image_token_id]
    expected = combine(plain_logits(model, inputs, []), plain_logits(model, inputs, [], text), 1.0, 0.0)
    torch.testing.assert_close(out.scores[0][0], expected, atol=1e-4, rtol=1e-4)


def test_reductions_and_the_contrast_go_together(models: dict[str, Any], family: str) -> None:
    """A reducer drops in the main branch alone; the outliers are those of the whole picture."""
    model, inputs = models[family], FAMILIES[family].inputs([1, 2], [4, 6])
    with argus.attach(model, "damro", tokens=K) as attachment:
        alone = model.generate(**inputs, max_new_tokens=4, **PLAIN)
        shown = [k.indices.tolist() for k in attachment.shown]
        with argus.attach(model, "fastervlm", keep=1.0):
            assert torch.equal(model.generate(**inputs, max_new_tokens=4, **PLAIN), alone)
        with argus.attach(model, "fastervlm", keep=0.3) as reducer:
            model.generate(**inputs, max_new_tokens=4, **PLAIN)
            assert reducer.counts[0].kept < reducer.counts[0].total
        assert [k.indices.tolist() for k in attachment.shown] == shown
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, **PLAIN), alone)


def test_half_precision_and_adapters(family: str) -> None:
    """bf16 decodes, the contrast itself in fp32; a model inside PEFT adapters gives what the bare one gives."""
    from peft import LoraConfig, get_peft_model

    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    with argus.attach(model, "damro", tokens=K):
        bare = model.generate(**inputs, max_new_tokens=3, **PLAIN)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], r=2)).eval()
    with argus.attach(wrapped, "damro", tokens=K):
        assert torch.equal(wrapped.generate(**inputs, max_new_tokens=3, **PLAIN), bare)
    half = FAMILIES[family].model().to(torch.bfloat16)
    with argus.attach(half, "damro", tokens=K):
        out = half.generate(
            **cast(inputs, torch.bfloat16), max_new_tokens=3, output_scores=True, return_dict_in_generate=True, **PLAIN
        )
    assert out.scores[0].dtype == torch.float32


def test_tokens_that_read_the_map_see_the_branch(models: dict[str, Any]) -> None:
    """Composed models: while the branch runs, the token map is the branch's own; afterwards the model's again."""
    model, inputs, maps = models["argus"], llava_inputs([1, 2], [4, 6]), []
    handle = model.model.language_model.register_forward_pre_hook(lambda m, a: maps.append(model.model.token_map))
    with argus.attach(model, "damro", tokens=K):
        model.generate(**inputs, max_new_tokens=3, **PLAIN)
    handle.remove()
    main, branch = maps[::2], maps[1::2]
    length = inputs["input_ids"].shape[1]
    assert [len(m) for m in main] == [length, length + 1, length + 2]
    assert [m.visual.sum(1).tolist() for m in main] == [[36, 72]] * 3
    assert [len(m) for m in branch] == [length - 72 + 2 * K + n for n in range(2)] + [length - 72 + 2 * K + 2]
    assert [m.visual.sum(1).tolist() for m in branch] == [[K, 2 * K]] * 3


RESAMPLERS: dict[str, dict[str, Any]] = {
    "qformer": {"queries": 5, "width": 16, "layers": 3, "heads": 2, "hidden": 24, "through": None},
    "mqt": {"max_tokens": 5, "key_source": "feature+position"},
}


def connected(connector: dict[str, Any], **options: Any) -> Any:
    """A composed model of pictures of 6 x 6 patches."""
    vision = ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=24, patch_size=4
    )
    config = ArgusConfig(vision, llama(4), image_token_id=IMAGE, connector=connector, **options)
    return made(ArgusForConditionalGeneration, config, {"text_config": "sdpa"})


def resampled(name: str, pictures: list[int], words: list[int]) -> tuple[Any, dict[str, Tensor]]:
    """A composed model whose connector has five queries, and prompts with five placeholders per picture."""
    long = llava_inputs(pictures, words)
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(long["input_ids"], long["attention_mask"], strict=True)]
    inputs = {**padded([_five(row) for row in rows]), "pixel_values": long["pixel_values"]}
    return connected({name: RESAMPLERS[name]}), inputs


def _five(row: list[int]) -> list[int]:
    """A prompt with five placeholders where it has 36."""
    out: list[int] = []
    for token in row:
        out += [token] if token != IMAGE or out[-5:] != [IMAGE] * 5 else []
    return out


@torch.no_grad()
def of_chosen(model: Any, pixels: Tensor, chosen: Tensor) -> Tensor:
    """(pictures, 5, D): the connector, one picture at a time, on the chosen patches (pictures, k) alone."""
    features, connector, rows = model.model.encode_images(pixels), model.model.multi_modal_projector, []
    for tokens, patches in zip(features.tokens, chosen.tolist(), strict=True):
        x = torch.stack([tokens[p] for p in patches])[None]  # (1, k, C)
        if "qformer" in model.config.connector:
            former = connector.qformer
            states = former.former(query_embeds=former.queries, encoder_hidden_states=connector.vision_norm(x)).last_hidden_state
            rows.append(connector.project(states)[0])
        else:  # a patch keeps its place
            place = torch.stack([connector.places((6, 6))[p] for p in patches])
            seen, _ = connector.attn(
                connector.ln_q(connector.query + connector.pos_embed[:5])[None], connector.ln_k(x) + place, connector.ln_v(x)
            )
            rows.append(connector.proj(seen)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("head_mode", ["single", "mean"])
@pytest.mark.parametrize("name", RESAMPLERS)
def test_resamplers_read_the_outliers_alone(name: str, head_mode: str) -> None:
    """InstructBLIP's way: the queries read K patches, and the branch sees as many tokens as the prompt, step by step."""
    model, inputs = resampled(name, [2], [5])
    chosen = hooked_scores(model, inputs["pixel_values"], head_mode).topk(K, -1).indices
    with argus.attach(model, "damro", tokens=K, alpha=1.5, beta=0.05, head_mode=head_mode) as attachment:
        out = model.generate(**inputs, max_new_tokens=4, output_scores=True, return_dict_in_generate=True, **PLAIN)
        assert [k.indices.tolist() for k in attachment.shown] == chosen.tolist()
        assert [(k.image, k.grid, k.total) for k in attachment.shown] == [(0, (6, 6), 36), (1, (6, 6), 36)]
    visual = inputs["input_ids"][0] == IMAGE
    whole = model.model.get_image_features(inputs["pixel_values"]).flatten(0, 1)
    less = of_chosen(model, inputs["pixel_values"], chosen).flatten(0, 1)
    assert not torch.allclose(whole, less, atol=1e-2)
    new = out.sequences[0, len(visual) :].tolist()
    for step, scores in enumerate(out.scores):
        logits = []
        for rows in (whole, less):
            embeddings = model.get_input_embeddings()(torch.tensor([*inputs["input_ids"][0].tolist(), *new[:step]]))
            embeddings[: len(visual)][visual] = rows
            with torch.no_grad():
                logits.append(model.lm_head(model.get_decoder()(inputs_embeds=embeddings[None]).last_hidden_state[0, -1]))
        torch.testing.assert_close(scores[0], combine(logits[0], logits[1], 1.5, 0.05), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"select": "random"}], ids=["outliers", "random"])
@pytest.mark.parametrize("name", RESAMPLERS)
def test_resamplers_in_batches_decode_as_alone(name: str, options: dict[str, Any]) -> None:
    model, inputs = resampled(name, [1, 2], [4, 6])
    with argus.attach(model, "damro", tokens=K, alpha=1.0, **options) as attachment:
        together = model.generate(**inputs, max_new_tokens=4, **PLAIN)[:, inputs["input_ids"].shape[1] :]
        shown = [k.indices.tolist() for k in attachment.shown]
        _, single = resampled(name, [1], [4])
        alone = model.generate(**single, max_new_tokens=4, **PLAIN)[0, single["input_ids"].shape[1] :]
        assert [k.indices.tolist() for k in attachment.shown] == shown[:1]
    assert torch.equal(alone, together[0])
    assert all(len(set(row)) == K for row in shown)


def test_tiles_of_a_resampler_each_give_their_outliers() -> None:
    """Two pictures, of two tiles and of four, each behind a view of the whole of it."""
    model = connected({"qformer": RESAMPLERS["qformer"]}, view={"nvlm": {"max_tiles": 4, "tags": "none", "thumbnail_tag": None}})
    sizes = torch.tensor([[24, 48], [48, 48]])
    pixels = torch.randn(3 + 5, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    inputs = padded([[3, 4, *[IMAGE] * 15, 5, *[IMAGE] * 25, 6, 7]]) | {"pixel_values": pixels, "image_sizes": sizes}
    with argus.attach(model, "damro", tokens=K, alpha=1.5, beta=0.0) as attachment:
        out = model.generate(**inputs, max_new_tokens=1, output_scores=True, return_dict_in_generate=True, **PLAIN)
        chosen = torch.stack([k.indices for k in attachment.shown])
        assert [(k.image, k.tile) for k in attachment.shown] == [*((0, t) for t in range(3)), *((1, t) for t in range(5))]
    with torch.no_grad():
        pictures = model.model.arrangements(sizes, (1, 5), [0, 0])
        rows = torch.cat(model.model.image_assembly(of_chosen(model, pixels, chosen), pictures))
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        embeddings[inputs["input_ids"] == IMAGE] = rows
        less = model.lm_head(model.get_decoder()(inputs_embeds=embeddings).last_hidden_state[:, -1])
        expected = combine(model(**inputs).logits[:, -1], less, 1.5, 0.0)
    torch.testing.assert_close(out.scores[0], expected, atol=1e-4, rtol=1e-4)


def test_all_patches_of_a_resampler_are_the_branch_itself() -> None:
    """MQT reads no prefix tokens: with all 36 patches both branches are one, and nothing is contrasted."""
    model, inputs = resampled("mqt", [1], [5])
    with torch.no_grad():
        base = model(**inputs).logits[:, -1]
    with argus.attach(model, "damro", tokens=36, alpha=1.5, beta=0.0):
        out = model.generate(**inputs, max_new_tokens=1, output_scores=True, return_dict_in_generate=True, **PLAIN)
    torch.testing.assert_close(out.scores[0], base, atol=1e-4, rtol=1e-4)


def test_pooled_tokens_have_the_mean_score_of_their_patches() -> None:
    """Four each, in both head modes."""
    model = connected({"pool": {"side": 3}})
    inputs = padded([[3, 4, *[IMAGE] * 9, 5, 6]])
    inputs["pixel_values"] = llava_inputs([1], [4])["pixel_values"]
    for head_mode in ("single", "mean"):
        scores = hooked_scores(model, inputs["pixel_values"], head_mode)
        expected = scores.view(3, 2, 3, 2).mean((1, 3)).flatten().topk(K).indices.tolist()
        with argus.attach(model, "damro", tokens=K, head_mode=head_mode) as attachment:
            model.generate(**inputs, max_new_tokens=1, **PLAIN)
            assert attachment.shown[0].indices.tolist() == expected
