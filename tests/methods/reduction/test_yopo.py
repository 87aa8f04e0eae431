"""YOPO skips for real what the paper's code masks: neighbours, heads, neurons, layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import argus
from argus.core.errors import ArgusError, RecipeError, UnsupportedError
from argus.methods.reduction.head_mask import read_head_mask
from argus.methods.reduction.visual_attention import neighbours
from argus.methods.reduction.yopo import kept_heads, visual_share, vote_score
from argus.model.anatomy import anatomy
from tests.methods.families import FAMILIES, IMAGE, cast, llava, llava_inputs
from tests.methods.reduction.test_fopru import grids

SOME = tuple(tuple(bool((layer + head) % 3) for head in range(4)) for layer in range(3))  # heads of grouped queries, too
ALL = ((True,) * 4,) * 3
CUTS: dict[str, dict[str, Any]] = {
    "window": {"window": 3},
    "causal": {"window": 3, "causal": True},
    "heads": {"heads": SOME},
    "ffn": {"ffn": 0.5},
    "layers": {"stop_layer": 2},
    "everything": {"window": 3, "heads": SOME, "ffn": 0.25, "stop_layer": 2},
}


@torch.no_grad()
def simulated(
    model: Any,
    inputs: dict[str, Tensor],
    more: tuple[int, ...] = (),
    *,
    window: int | None = None,
    causal: bool = False,
    heads: Any = ALL,
    ffn: float = 1.0,
    stop_layer: int = 99,
    mode: str = "presoftmax",
) -> Tensor:
    """(S, V) logits of one prompt of a Llama-shaped model and tokens behind it, everything computed in full, then masked."""
    parts = anatomy(model)
    ids = torch.cat([inputs["input_ids"], torch.tensor([more], dtype=torch.long)], dim=1)
    tokens = parts.visual_tokens(inputs)
    size, visual = ids.shape[1], torch.zeros(ids.shape[1], dtype=torch.bool)
    visual[tokens.column] = True
    features = model.model.get_image_features(inputs["pixel_values"])
    features = torch.cat(list(getattr(features, "pooler_output", features))).flatten(0, -2)
    x = model.get_input_embeddings()(ids)
    x[0, visual] = features
    position = torch.arange(size)[None]
    cos, sin = parts.rotary(x, position)
    sees = torch.ones(size, size, dtype=torch.bool).tril()
    if window is not None:
        for a in range(len(tokens)):
            for b in range(len(tokens)):
                wide = tokens.crops[int(tokens.crop[a])].grid[1]
                (ra, ca), (rb, cb) = divmod(int(tokens.cell[a]), wide), divmod(int(tokens.cell[b]), wide)
                near = max(abs(ra - rb), abs(ca - cb)) <= (window - 1) // 2 and tokens.crop[a] == tokens.crop[b]
                sees[tokens.column[a], tokens.column[b]] = near and (not causal or b <= a)
    layers: Any = parts.layers
    for index, layer in enumerate(layers):
        kept = torch.tensor(heads[index]) & (index < stop_layer)
        attention = layer.self_attn
        normed = layer.input_layernorm(x)
        q, k, v = (
            p(normed).view(1, size, -1, attention.head_dim).transpose(1, 2)
            for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        logits = (q @ k.transpose(-1, -2) * attention.scaling).masked_fill(~sees, -1e30)[0]  # (H, S, S)
        blind = ~kept[:, None, None] & visual  # (H, 1, S)
        if mode == "presoftmax":
            weights = logits.masked_fill(blind & ~torch.eye(size, dtype=torch.bool), -1e30).softmax(-1)
        else:
            weights = logits.softmax(-1)
        weights = weights.masked_fill(blind & ~visual[:, None], 0) if mode == "postsoftmax" else weights
        out = (weights @ v[0]).masked_fill(~kept[:, None, None] & visual[:, None], 0)  # cut heads give visual rows nothing
        x = x + attention.o_proj(out.transpose(0, 1).reshape(1, size, -1))
        normed, mlp = layer.post_attention_layernorm(x), layer.mlp
        inner = mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed)
        inner[:, visual, int(inner.shape[-1] * ffn) :] = 0
        x = x + mlp.down_proj(inner)
    return model.lm_head(parts.language_model.norm(x))[0]


def text(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return ~anatomy(model).visual_mask(inputs["input_ids"])[0]


@pytest.mark.parametrize("mode", ["presoftmax", "postsoftmax"])
def test_nothing_cut_is_the_base_model(family: str, mode: str) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "yopo", heads=ALL, mode=mode, keep=1.0, stop_layer=2):
            assert torch.equal(model(**inputs).logits, base)


def test_a_window_over_everything_is_the_base_model(plain: str) -> None:
    """Width 2 * 6 - 1 and raster order: every token sees all in front of it. Windows end where crops do."""
    model, inputs = FAMILIES[plain].model(), FAMILIES[plain].inputs([1], [6])
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "yopo", window=11, causal=True):
            torch.testing.assert_close(model(**inputs).logits, base, atol=2e-5, rtol=1e-4)


def test_windows_by_hand() -> None:
    """4 x 4, width 3: a corner sees 4 with itself, an edge 6, the middle 9; 100 pairs in all."""
    counts = (neighbours(grids((4, 4)), 3, causal=False) >= 0).sum(1).view(4, 4).tolist()
    assert counts == [[4, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]]
    assert sum(map(sum, counts)) == 100


@given(
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    reach=st.integers(0, 3),
    causal=st.booleans(),
)
def test_windows_equal_a_double_loop(shapes: list[tuple[int, int]], reach: int, causal: bool) -> None:
    """Within each crop; symmetric unless causal; never more than the square of the width."""
    tokens, window = grids(*shapes), 2 * reach + 1
    table = neighbours(tokens, window, causal)
    assert table.shape == (len(tokens), window**2)
    pairs = {(a, int(b)) for a, row in enumerate(table) for b in row if b >= 0}
    place = [(i, r, c) for i, (high, wide) in enumerate(shapes) for r in range(high) for c in range(wide)]
    expected = {
        (a, b)
        for a, (i, r, c) in enumerate(place)
        for b, (j, s, d) in enumerate(place)
        if i == j and abs(r - s) <= reach and abs(c - d) <= reach and (not causal or b <= a)
    }
    assert pairs == expected


@pytest.mark.parametrize("mode", ["presoftmax", "postsoftmax"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", ["argus", "llava"])
def test_skipping_equals_masking(name: str, cut: str, mode: str) -> None:
    """Logits of all text tokens, also with several pictures."""
    model = FAMILIES[name].model()
    for pictures in (1, 2):
        inputs = FAMILIES[name].inputs([pictures], [6])
        expected = simulated(model, inputs, mode=mode, **CUTS[cut])
        with torch.no_grad(), argus.attach(model, "yopo", mode=mode, **CUTS[cut]):
            logits = model(**inputs).logits[0]
        where = text(model, inputs)
        torch.testing.assert_close(logits[where], expected[where], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["presoftmax", "postsoftmax"])
def test_decoding_equals_recomputing(mode: str) -> None:
    """The cache knows which of its keys are visual: same tokens as the masked model run anew."""
    model, inputs = llava(), llava_inputs([1], [6])
    plain = {"eos_token_id": None, "suppress_tokens": [IMAGE], "do_sample": False, "pad_token_id": 0}
    with argus.attach(model, "yopo", mode=mode, **CUTS["everything"]):
        out = model.generate(**inputs, max_new_tokens=4, **plain, output_logits=True, return_dict_in_generate=True)
    new = tuple(out.sequences[0, inputs["input_ids"].shape[1] :].tolist())
    expected = simulated(model, inputs, new[:-1], mode=mode, **CUTS["everything"])[-4:]
    torch.testing.assert_close(torch.stack([row[0] for row in out.logits]), expected, atol=1e-4, rtol=1e-4)
    lengths = [layer.keys.shape[2] for layer in out.past_key_values.layers]
    assert lengths[0] == lengths[1]
    assert lengths[2] == lengths[0] - (36 if mode == "presoftmax" else 0)


def test_padded_batches_equal_one_by_one(family: str) -> None:
    """Items with other numbers of pictures and words; grouped queries; mRoPE."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [6, 4])
    alone = FAMILIES[family].inputs([1], [6])
    with torch.no_grad(), argus.attach(model, "yopo", **CUTS["everything"]):
        together = model(**inputs).logits[0, inputs["attention_mask"][0].bool()]
        single = model(**alone).logits[0]
    where = text(model, alone)
    torch.testing.assert_close(together[where], single[where], atol=5e-5, rtol=1e-4)


def test_repeated_caches_know_their_pictures() -> None:
    """Options that follow one prefix: three copies of its cache answer as the one does."""
    model, inputs = llava(), llava_inputs([1], [6])
    with torch.no_grad(), argus.attach(model, "yopo", heads=SOME):
        cache = model(**inputs, use_cache=True).past_key_values
        cache.batch_repeat_interleave(3)
        more = model(input_ids=torch.tensor([[7], [8], [9]]), past_key_values=cache).logits[:, -1]
        for row, token in enumerate((7, 8, 9)):
            expected = simulated(model, inputs, (token,), heads=SOME)[-1]
            torch.testing.assert_close(more[row], expected, atol=1e-4, rtol=1e-4)


def test_behind_a_reducer_of_the_encoder() -> None:
    """Survivors see survivors that are near them on the picture's own grid: dropping and masking agree."""
    model, inputs = llava(), llava_inputs([1], [6])
    found = []
    for apply in ("drop", "mask"):
        first: dict[str, Any] = {"keep": 0.5, "positions": "original", "apply": apply}
        near = {"window": 3, "heads": SOME, "ffn": 0.5}
        with argus.attach(model, "fastervlm", **first) as outer, argus.attach(model, "yopo", **near), torch.no_grad():
            found.append(model(**inputs).logits[0, text(model, inputs)])
        assert outer.counts[0].kept == 18
    torch.testing.assert_close(found[0], found[1], atol=5e-5, rtol=1e-4)


def test_adapters_and_gradients() -> None:
    """LoRA on every linear layer: as if it were merged; the loss reaches its weights through rows that are cut short."""
    inputs = llava_inputs([1], [6])
    torch.manual_seed(3)
    names = [f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down")]
    tuned: Any = get_peft_model(llava(), LoraConfig(r=2, target_modules=names, init_lora_weights=False))
    with argus.attach(tuned, "yopo", **CUTS["everything"]):
        logits = tuned(**inputs).logits[0]
        logits[-1].square().mean().backward()
    learned = [p for name, p in tuned.named_parameters() if "language_model.layers.0" in name and "lora_B" in name]
    assert len(learned) == 7
    assert all(bool(p.grad.abs().sum() > 0) for p in learned)
    merged = tuned.merge_and_unload()
    with argus.attach(merged, "yopo", **CUTS["everything"]), torch.no_grad():
        expected = merged(**inputs).logits[0]
    where = text(merged, inputs)
    torch.testing.assert_close(logits[where].detach(), expected[where], atol=1e-4, rtol=1e-4)


def test_bfloat16() -> None:
    """Close to float32, and of its own type."""
    inputs = llava_inputs([1, 2], [6, 4])
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = llava().to(dtype)
        with argus.attach(model, "yopo", **CUTS["everything"]), torch.no_grad():
            found.append(model(**cast(inputs, dtype)).logits[:, -1])
    assert found[1].dtype == torch.bfloat16
    assert float((found[0] - found[1]).abs().mean()) < 0.1 * float(found[0].std())


def test_detaching_gives_the_model_back() -> None:
    model, inputs = llava(), llava_inputs([1], [6])
    with torch.no_grad():
        base = model(**inputs).logits
        attachment = argus.attach(model, "yopo", **CUTS["everything"])
        assert not torch.equal(model(**inputs).logits, base)
        attachment.detach()
        assert torch.equal(model(**inputs).logits, base)


def test_flops_fall_by_what_is_predicted() -> None:
    """FFN: 36 visual rows of 32 channels leave half of 64 neurons in three layers; other cuts save, too, and cuts add up."""
    model, inputs = llava("eager"), llava_inputs([1], [6])

    def counted(**options: Any) -> int:
        with torch.no_grad(), argus.attach(model, "yopo", **options), FlopCounterMode(display=False) as counter:
            model(**inputs)
        return counter.get_total_flops()

    full = counted()
    assert full - counted(ffn=0.5) == 3 * 36 * 2 * 3 * 32 * 32
    blind = ((True,) * 4, (True,) * 4, (False,) * 4)  # 36 visual rows without projections to 4 heads on 2 key heads of 8
    attention = 36 * 9 + 36 * (36 + 9)  # products that are left out: of 9 text rows on pictures, of pictures on everything
    assert full - counted(heads=blind) == 36 * 2 * 32 * (32 + 16 + 16 + 32) + 2 * 2 * attention * 4 * 8
    assert full - counted(ffn=0.5, stop_layer=2) > full - counted(stop_layer=2) > 0
    heads = [counted(heads=mask) for mask in (ALL, SOME, ((False,) * 4,) * 3)]
    assert heads == sorted(heads, reverse=True)
    assert heads[2] < heads[1] < heads[0] == full
    assert counted(window=3) < full
    with argus.attach(model, "fastervlm", keep=0.5):  # half as many visual rows, half of which is cut: savings multiply
        assert counted() - counted(ffn=0.5) == 3 * 18 * 2 * 3 * 32 * 32


def test_votes_by_hand() -> None:
    """Five prompts, one layer of two heads behind the protected ones. More than 40 % of five is three votes."""
    rho = torch.zeros(5, 3, 2)
    rho[:, 2, 0] = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.3])  # three are above 0.25
    rho[:, 2, 1] = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.2])  # two are
    score = vote_score(rho, 0.4)
    assert score[2].tolist() == pytest.approx([0.3, 0.2])
    for threshold in (0.05, 0.25, 0.35):
        votes = (rho > threshold).sum(0) > 0.4 * 5
        votes[:2] = True
        assert torch.equal(kept_heads(score, threshold), votes)
    kept = [int(kept_heads(score, t).sum()) for t in (0.0, 0.1, 0.2, 0.25, 0.3, 1.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 4  # the first two layers
    assert [int(kept_heads(score, 0.0, share).sum()) for share in (0.0, 0.5, 1.0)] == [4, 5, 6]


def test_shares_equal_full_maps(family: str) -> None:
    """Against the eager model's maps: attention on visual columns over attention on the others, all rows."""
    model, eager = FAMILIES[family].model(), FAMILIES[family].model("eager")
    inputs = FAMILIES[family].inputs([1], [6])

    class Asked:
        anatomy = anatomy(model)

    where = ~anatomy(model).visual_tokens(inputs).mask(*inputs["input_ids"].shape)[0]  # line breaks show nothing
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True).attentions
    expected = torch.stack([m[0, :, :, ~where].sum((1, 2)) / m[0, :, :, where].sum((1, 2)) for m in maps])
    torch.testing.assert_close(visual_share(Asked(), inputs), expected, atol=1e-5, rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"heads": ((True, False),) * 3}, "3 layers x 4 heads"),
        ({"keep": 0.5}, "keep is 0, or 1"),
        ({"stop_layer": 3}, "only 3 layers"),
    ],
)
def test_what_the_model_cannot_do_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        argus.attach(llava(), "yopo", **options)


PUBLISHED = "32 32 0 0 1 0 1 0 4 3 5 5 10 8 18 11 9 10 9 11 15 11 11 6 11 7 10 1 4 6 2 7"  # of 32 heads, by layer


def write_mask(path: Path, rows: Any) -> Path:
    mask = np.array(rows, dtype=bool)
    if path.suffix == ".npy":
        np.save(path, mask)
    elif path.suffix == ".json":
        path.write_text(json.dumps(mask.tolist()))
    else:
        save_file({"mask": torch.from_numpy(mask)}, path)
    return path


@pytest.mark.parametrize("ending", [".npy", ".json", ".safetensors"])
def test_masks_are_read_from_files(tmp_path: Path, ending: str) -> None:
    """A file is what its rows are, in code and in a recipe's text."""
    model, inputs, path = llava(), llava_inputs([1], [6]), write_mask(tmp_path / f"mask{ending}", SOME)
    found = []
    for heads in (SOME, path, str(path)):
        with torch.no_grad(), argus.attach(model, "yopo", heads=heads) as attachment:
            assert attachment.options.heads == SOME
            found.append(model(**inputs).logits)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("ending", [".npy", ".json", ".safetensors"])
def test_a_mask_of_the_published_size(tmp_path: Path, ending: str) -> None:
    """Rows with as many heads as the published mask keeps in each layer; it fits no other model."""
    counts = [int(word) for word in PUBLISHED.split()]
    generator = np.random.default_rng(0)
    rows = [generator.permutation([True] * n + [False] * (32 - n)) for n in counts]
    path = write_mask(tmp_path / f"8{ending}", rows)
    mask = torch.tensor(read_head_mask(path))
    assert mask.shape == (32, 32)
    assert torch.equal(mask, torch.tensor(np.array(rows)))
    assert mask.sum(1).tolist() == counts
    assert float(mask.float().mean()) == pytest.approx(0.254, abs=5e-4)
    with pytest.raises(UnsupportedError, match="3 layers x 4 heads"):
        argus.attach(llava(), "yopo", heads=path)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("no.json", None, "no such file"),
        ("bad.json", "[[true", "cannot be read"),
        ("flat.json", "[true, false]", "rows, one a layer"),
        ("words.json", '[["a", "b"]]', "rows, one a layer"),
        ("two.json", "[[0, 2]]", "rows, one a layer"),
        ("uneven.json", "[[true], [true, false]]", "cannot be read"),
        ("bad.npy", "no array", "cannot be read"),
        ("bad.safetensors", "nothing", "cannot be read"),
        ("mask.txt", "1 0", "not read from '.txt' files"),
    ],
)
def test_files_without_a_mask_say_what_is_wrong(tmp_path: Path, name: str, text: str | None, word: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ArgusError, match=word):
        argus.attach(llava(), "yopo", heads=tmp_path / name)


def test_even_windows_are_refused() -> None:
    with pytest.raises(RecipeError, match="odd"):
        argus.attach(llava(), "yopo", window=4)
