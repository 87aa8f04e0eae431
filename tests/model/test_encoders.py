"""Vision towers: every family gives features of one shape, and the CLS row that the full map has."""

from dataclasses import fields

import pytest
import torch
from transformers import AutoConfig

from argus.core.errors import UnsupportedError
from argus.model.encoders.base import Encoder, build_tower, nested_config
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.encoders.transformers_tower import PREFIX, TransformersTower
from argus.model.encoders.vit import ViT, ViTConfig
from tests.model.tiny import SMALL, TOWERS


def tower_of(kind: str, **more: int) -> TransformersTower:
    torch.manual_seed(0)
    tower = TransformersTower(AutoConfig.for_model(kind, intermediate_size=48, **SMALL, **more)).eval()
    tower.tower.set_attn_implementation("eager")
    return tower


@pytest.mark.parametrize("name", TOWERS)
def test_every_tower_gives_features_of_one_shape(name: str) -> None:
    torch.manual_seed(0)
    tower = build_tower(TOWERS[name]).eval()
    with torch.no_grad():
        features = tower(torch.randn(2, 3, 32, 32), hidden_states=True)
    assert features.tokens.shape == (2, 16, 32)
    assert features.grid == (4, 4)
    assert (features.cls is not None) == tower.has_cls == (name != "siglip")
    assert len(features.hidden_states) == 4


@pytest.mark.parametrize("kind", PREFIX)
def test_every_known_family_gives_its_patches_and_its_cls_row(kind: str) -> None:
    """16 patches whatever stands in front of them (CLS, registers, a distillation token); the row equals the full map's."""
    tower = tower_of(kind)
    assert isinstance(tower, Encoder)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = tower(pixels)
        assert plain.tokens.shape == (2, 16, 32)
        assert tower.has_cls == (PREFIX[kind] > 0)
        if not tower.has_cls:
            with pytest.raises(UnsupportedError, match="no CLS token"):
                tower(pixels, cls_attention=True)
            return
        read = tower(pixels, cls_attention=True)
        full = tower.tower(pixels, output_attentions=True, **tower._extra(pixels))
    row = full.attentions[-2][:, :, 0, tower.prefix :]  # the block whose output is hidden state -2
    if kind == "vit_mae":
        row = row.gather(2, full.ids_restore[:, None].expand_as(row))
    torch.testing.assert_close(read.cls_attention, row, rtol=1e-5, atol=1e-6)
    assert torch.equal(plain.tokens, read.tokens)
    assert plain.prefix is not None
    assert plain.prefix.shape[1] == tower.prefix


@torch.no_grad()
@pytest.mark.parametrize("name", [*TOWERS, "convnext"])
def test_some_tiles_at_a_time_give_the_same_features(name: str) -> None:
    maps = AutoConfig.for_model("convnext", hidden_sizes=[8, 16, 32, 32], depths=[1, 1, 1, 1], image_size=64)
    tower = build_tower(TOWERS.get(name, maps)).eval()
    pixels = torch.randn(5, 3, tower.image_size, tower.image_size)
    asked = {"hidden_states": name != "convnext", "cls_attention": tower.has_cls}
    expected, found = tower(pixels, **asked), tower(pixels, **asked, tiles_per_pass=2)
    for f in fields(expected):
        torch.testing.assert_close(getattr(found, f.name), getattr(expected, f.name), rtol=1e-4, atol=1e-5)


def test_registers_are_no_patches() -> None:
    tower = tower_of("dinov2_with_registers", num_register_tokens=3)
    assert tower.prefix == 4
    assert tower(torch.randn(1, 3, 32, 32)).tokens.shape == (1, 16, 32)


def test_a_patch_is_at_its_place() -> None:
    """A change in the picture's last patch moves the last token of the patch embeddings alone (MAE shuffles inside)."""
    for kind in ("clip_vision_model", "siglip_vision_model", "dinov2", "vit_mae"):
        tower = tower_of(kind)
        tower.feature_layer = 0
        a = torch.randn(1, 3, 32, 32)
        b = a.clone()
        b[..., 24:, 24:] += 1
        with torch.no_grad():
            moved = (tower(a).tokens - tower(b).tokens).abs().amax(-1)[0] > 1e-6
        assert moved.nonzero().flatten().tolist() == [15], kind


def test_unknown_families_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnsupportedError, match=r"'dinov3_vit' are not known\. Did you mean 'dinov2"):
        TransformersTower(AutoConfig.for_model("dinov3_vit", intermediate_size=48, **SMALL))


@pytest.mark.parametrize("kind", ["argus_vit", "argus_vitamin", "clip_vision_model"])
def test_layers_that_a_tower_has_not_are_refused(kind: str) -> None:
    """None is taken in their place."""
    sizes = {"model_type": kind, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32}
    for layer in (-4, 3):
        build_tower(nested_config({**sizes, "feature_layer": layer}, kind))
    for layer in (-5, 4):
        with pytest.raises(UnsupportedError, match=rf"no hidden state {layer} in a tower of 3 blocks\. 0 are the embeddings"):
            build_tower(nested_config({**sizes, "feature_layer": layer}, kind))


@pytest.mark.parametrize("kind", ["argus_vit", "argus_vitamin"])
def test_heads_that_do_not_divide_the_width_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedError, match="width 32 do not divide into 3 attention heads"):
        build_tower(nested_config({"model_type": kind, "hidden_size": 32, "num_attention_heads": 3, "image_size": 32}, kind))


def test_pixels_are_normalised_as_the_family_was_trained() -> None:
    assert pixel_statistics(TOWERS["siglip"])[0] == [0.5, 0.5, 0.5]
    assert pixel_statistics(TOWERS["dinov2"])[0] == [0.485, 0.456, 0.406]
    assert pixel_statistics(TOWERS["clip"])[0][0] == 0.48145466
    assert pixel_statistics(TOWERS["vit"])[1] == [0.25, 0.25, 0.25]  # a config's own count


def test_patch_embeddings_have_no_attention() -> None:
    tower = tower_of("clip_vision_model")
    tower.feature_layer = 0
    with pytest.raises(UnsupportedError, match="no block made them"):
        tower(torch.randn(1, 3, 32, 32), cls_attention=True)


def test_the_vits_cls_row_equals_brute_force() -> None:
    torch.manual_seed(0)
    vit = ViT(ViTConfig(intermediate_size=48, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32)).eval()
    with torch.no_grad():
        out = vit(torch.randn(1, 3, 32, 32), cls_attention=True, hidden_states=True)
        x = out.hidden_states[1][0]  # input of block 2 (1-based), whose output is layer -2 of [embeddings, 1, 2, 3]
        block = vit.blocks[1]
        q, k, _ = block.qkv(block.norm1(x)).view(17, 3, 2, 16).unbind(1)
        for head in range(2):
            scores = torch.stack([q[0, head] @ k[j, head] / 4.0 for j in range(17)])  # 4 = sqrt(16)
            torch.testing.assert_close(out.cls_attention[0, head], scores.softmax(0)[1:], rtol=1e-5, atol=1e-6)
    assert torch.equal(out.tokens, out.hidden_states[2][:, 1:])


def test_the_vit_reads_other_sizes() -> None:
    vit = ViT(ViTConfig(intermediate_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32)).eval()
    assert vit(torch.randn(1, 3, 48, 64)).grid == (6, 8)
    assert torch.equal(vit.positions((4, 4)), vit.position)
