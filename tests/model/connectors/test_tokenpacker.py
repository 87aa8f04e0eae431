"""TokenPacker: each coarse token looks into its own block of patches and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.features import VisualFeatures
from tests.model.connectors.composed import ENCODER, composed, features, picture

LEVELS = [1, 3]


def packer(scale: int, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"scale_factor": scale, "levels": LEVELS, "heads": 2, **options}
    return build("connector", "tokenpacker", options, vision_width=16, text_width=12).eval()


def changed(seen: VisualFeatures, patch: int) -> VisualFeatures:
    """One patch of a level that keys and values are made of is another; the queries' layer stays."""
    states = [state.clone() for state in seen.hidden_states or ()]
    states[3][:, 1 + patch] += 3.0
    return replace(seen, hidden_states=tuple(states))


def moved(before: Tensor, after: Tensor) -> list[int]:
    return (before - after).abs().amax((0, 2)).gt(1e-6).nonzero().flatten().tolist()


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_detail_stays_in_its_block(scale: int) -> None:
    """12 x 12 patches: patch (7, 4) belongs to coarse token (7 // s, 4 // s) alone."""
    connector, seen = packer(scale), features(grid=(12, 12))
    before, after = connector(seen), connector(changed(seen, 7 * 12 + 4))
    assert before.shape == (2, (12 // scale) ** 2, 12)
    assert moved(before, after) == [7 // scale * (12 // scale) + 4 // scale]


@pytest.mark.parametrize(("scale", "footprint"), [(2, {0, 1}), (3, {1}), (4, {1, 2})])
def test_queries_read_the_footprint_of_the_interpolation(scale: int, footprint: set[int]) -> None:
    """Of a block of patches the query takes all (2), the centre (3), the central four (4); the rest is not in it."""
    connector, seen = packer(scale), features(grid=(12, 12))
    before = connector(seen)
    for row in range(scale):
        for column in range(scale):
            tokens = seen.tokens.clone()
            tokens[:, row * 12 + column] += 3.0
            inside = row in footprint and column in footprint
            assert moved(before, connector(replace(seen, tokens=tokens))) == ([0] if inside else [])


def test_bilinear_rules() -> None:
    seen = features(grid=(12, 12))
    maps = seen.tokens.view(2, 12, 12, 16)
    halves = maps.view(2, 6, 2, 6, 2, 16).mean((2, 4)).flatten(1, 2)
    centre = maps[:, 1::3, 1::3].flatten(1, 2)
    central = maps.view(2, 3, 4, 3, 4, 16)[:, :, 1:3, :, 1:3].mean((2, 4)).flatten(1, 2)
    for scale, expected in ((2, halves), (3, centre), (4, central)):
        torch.testing.assert_close(packer(scale).coarse(seen), expected, rtol=1e-5, atol=1e-6)


def test_it_is_the_loop_over_cells() -> None:
    connector, seen = packer(2), features(grid=(4, 6))
    assert seen.hidden_states is not None
    fine = torch.cat([seen.hidden_states[level][:, 1:] for level in LEVELS], -1)
    key, value = connector.ln_k(connector.k_proj(fine)), connector.ln_v(connector.v_proj(fine))
    query = connector.ln_q(connector.q_proj(connector.coarse(seen)))
    expected = []
    for cell in range(6):
        row, column = divmod(cell, 3)
        block = [(2 * row + r) * 6 + 2 * column + c for r in range(2) for c in range(2)]
        out, _ = connector.attn(query[:, cell : cell + 1], key[:, block], value[:, block])
        expected.append(connector.mlp(out))
    torch.testing.assert_close(connector(seen), torch.cat(expected, 1), rtol=1e-5, atol=1e-5)


def test_blocks_of_one_do_not_read_the_query() -> None:
    """s = 1: the softmax over one key is 1, so a token is MLP(W_o (W_v v))."""
    connector, seen = packer(1), features()
    fine = connector.level_states(seen)
    weight, bias = connector.attn.in_proj_weight[32:], connector.attn.in_proj_bias[32:]
    expected = connector.mlp(connector.attn.out_proj(connector.ln_v(connector.v_proj(fine)) @ weight.T + bias))
    torch.testing.assert_close(connector(seen), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(connector(replace(seen, tokens=-seen.tokens)), expected, rtol=1e-5, atol=1e-5)


def test_grids_without_whole_blocks_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="27 x 27 patches has no whole blocks of 2 x 2"):
        packer(2).tokens((27, 27))
    assert packer(3).tokens((27, 27)) == (9, 9)


def test_levels_are_checked_when_the_model_is_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match=r"reads the hidden states \[12, 16, 22, 23\], and the encoder has 3 blocks"):
        composed(monkeypatch, "tokenpacker")
    with pytest.raises(UnsupportedError, match="gives no hidden states"):
        packer(2)(replace(features(), hidden_states=None))


@pytest.mark.parametrize(
    "encoder",
    [
        ENCODER,
        {"transformers": {**ENCODER["vit"], "model_type": "clip_vision_model"}},
        {"transformers": {**ENCODER["vit"], "model_type": "siglip_vision_model"}},
        {"transformers": {**ENCODER["vit"], "model_type": "internvl_vision"}},
        {"s2": {"encoder": ENCODER, "scales": [1, 2], "image_size": 32}},
    ],
    ids=["vit", "clip", "siglip", "internvit", "s2"],
)
def test_it_reads_every_encoder_with_hidden_states(encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the tokens; the channels of S2's scales multiply."""
    model, processor = composed(monkeypatch, {"tokenpacker": {"levels": [1, -1]}}, encoder=encoder)
    connector, width = model.model.multi_modal_projector, model.model.vision_tower.hidden_size
    assert connector.k_proj[0].in_features == 2 * width == (128 if "s2" in encoder else 64)
    inputs = processor(images=[picture()], text="<image>\nHow many?", return_tensors="pt")
    assert int((inputs["input_ids"] == 3).sum()) == 16
    assert model(**inputs).logits.isfinite().all()


def test_high_definition_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 3 tiles and the whole at 16 tokens each, 4 commas and 3 line breaks between them; batches answer as one does."""
    model, processor = composed(monkeypatch, {"tokenpacker": {"levels": [1, 2]}}, "tokenpacker_hd")
    text, wide = "User: <image>\nWhat colour is the star?\nAssistant:", picture(1, 60, 40)
    assert processor.image_processor.view_component.cut(60, 40, 32).grid == (3, 2)
    one = processor(images=[wide], text=text, return_tensors="pt")
    plain = processor.tokenizer(text, add_special_tokens=False).input_ids
    assert one["input_ids"].shape[1] == len(plain) - 1 + (2 * 3 + 1) * 16 + 2 * 2 + 2 + 1
    assert one["pixel_values"].shape == (7, 3, 32, 32)
    how = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    both = processor(images=[wide, picture(2)], text=[text, text], padding=True, return_tensors="pt")
    assert model.generate(**both, **how)[0, -4:].tolist() == model.generate(**one, **how)[0, -4:].tolist()


def test_sizes_are_the_published_ones() -> None:
    """CLIP ViT-L/14-336 and Vicuna-7B: 8 heads, keys and values from four levels, LLaVA's MLP behind."""
    with torch.device("meta"):
        connector = build("connector", "tokenpacker", vision_width=1024, text_width=4096)
    assert (connector.attn.num_heads, connector.tokens((24, 24))) == (8, (12, 12))
    side = 1024 * 1024
    projections = side + 2 * (4 * side + 1024 + side + 1024) + 3 * 2048
    attention, mlp = 4 * side + 4 * 1024, 4 * side + 4096 + 16 * side + 4096
    assert sum(p.numel() for p in connector.parameters()) == projections + attention + mlp
