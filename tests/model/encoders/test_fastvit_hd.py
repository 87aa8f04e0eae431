"""FastViTHD: published size and strides, exact re-parameterisation, published names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.core.registry import build
from argus.model.compose import compose
from argus.model.encoders.fastvit_blocks import MapAttentionBlock, Position, RepMixer
from argus.model.encoders.fastvit_hd import FastViTHD, FastViTHDConfig
from argus.model.encoders.fastvit_names import published_weights
from argus.model.encoders.reparameterised import RepConv
from argus.model.encoders.s2 import S2, S2Config
from tests.model.test_load import language

FIVE = {"depths": (1, 1, 1, 1, 1), "widths": (8, 16, 32, 32, 64), "image_size": 128}


def randomised(module: nn.Module) -> Any:
    """Weights and running statistics as after training: no branch is negligible."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.normal_(1.0 if "scale" in name or value.ndim == 1 else 0.0, 0.3)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
    return module.eval()


def test_published_size_and_shape() -> None:
    """122.7 M parameters in the fused form; stride 64, width 3072."""
    config = build("encoder", "fastvit_hd", {"variant": "HD", "image_size": 1024}).config()
    config.fused = True
    with torch.device("meta"):
        tower = FastViTHD(config)
        assert sum(p.numel() for p in tower.parameters()) / 1e6 == pytest.approx(122.7, rel=0.001)
        for side, tokens in ((256, 16), (512, 64), (1024, 256)):
            assert tower(torch.empty(1, 3, side, side)).tokens.shape == (1, tokens, 3072)
    assert (tower.patch_size, tower.hidden_size, tower.image_size) == (64, 3072, 1024)


@torch.no_grad()
def test_new_weights_without_branches() -> None:
    """What is only timed is timed in the form in which models are used."""
    options = {**FIVE, "fused": True}
    tower = FastViTHD(build("encoder", "fastvit_hd", options).config()).eval()
    folded = FastViTHD(FastViTHDConfig(**FIVE)).eval()
    folded.reparameterise()
    assert tower.state_dict().keys() == folded.state_dict().keys()
    folded.load_state_dict(tower.state_dict())
    pixels = torch.rand(1, 3, 128, 128)
    assert torch.equal(tower(pixels).tokens, folded(pixels).tokens)


@torch.no_grad()
def test_strides_and_maps_of_a_tiny_one() -> None:
    tower = FastViTHD(FastViTHDConfig(**FIVE)).eval()
    found = tower(torch.randn(2, 3, 128, 192), pooled=True)
    assert found.grid == (2, 3)
    assert [m.shape[1:] for m in found.feature_maps] == [(8, 32, 48), (16, 16, 24), (32, 8, 12), (32, 4, 6), (64, 2, 3)]
    torch.testing.assert_close(found.pooled, found.tokens.mean(1))
    with pytest.raises(UnsupportedError, match=r"multiples of 64 px, not \(96, 128\)"):
        tower(torch.randn(1, 3, 96, 128))


PARTS: dict[str, tuple[nn.Module, int]] = {
    "convolution, smaller one and identity": (RepConv(6, 6, 3, groups=6, small=1), 6),
    "convolution and smaller one": (RepConv(6, 12, 7, 2, 6, small=3), 6),
    "convolution and identity": (RepConv(6, 6, 1), 6),
    "one convolution": (RepConv(3, 6, 3, 2), 3),
    "groups of two": (RepConv(6, 6, 3, groups=3, small=1), 6),
    "mixer": (RepMixer(6, fused=False), 6),
    "position": (Position(6, fused=False), 6),
}


@pytest.mark.parametrize("name", PARTS)
@torch.no_grad()
def test_every_kind_of_part_folds_exactly(name: str) -> None:
    part, width = PARTS[name]
    part = randomised(part)
    x = torch.randn(2, width, 9, 8)
    before = part(x)
    part.reparameterise()
    found = part(x)
    assert (found - before).abs().max() < 1e-5
    assert [n for n, _ in part.named_parameters()] == ["fused.weight", "fused.bias"]
    part.reparameterise()  # once more changes nothing
    assert torch.equal(part(x), found)


@torch.no_grad()
def test_branches_by_hand() -> None:
    """A 1 x 1 convolution, w = 2, and the identity, each behind its norm: 2 x (3 x - 1) / 2 + 5 and (x - 4) / 3 - 2 for x."""
    part = RepConv(1, 1, 1).eval()
    conv, norm = part.branches[0]
    conv.weight.fill_(2.0)
    norm.weight.fill_(3.0), norm.bias.fill_(5.0), norm.running_mean.fill_(1.0), norm.running_var.fill_(4.0 - norm.eps)
    part.skip.bias.fill_(-2.0), part.skip.running_mean.fill_(4.0), part.skip.running_var.fill_(9.0 - part.skip.eps)
    kernel, bias = part.kernel_and_bias()
    assert kernel.item() == pytest.approx(2 * 3 / 2 + 1 / 3)  # W g / s of both
    assert bias.item() == pytest.approx((5 - 1 * 3 / 2) + (-2 - 4 / 3))
    assert part(torch.full((1, 1, 1, 1), 7.0)).item() == pytest.approx(7 * kernel.item() + bias.item(), rel=1e-5)


@pytest.mark.parametrize("multi_scale", ["none", "average", "depthwise"])
@torch.no_grad()
def test_the_whole_tower_folds_and_the_folded_form_is_saved(multi_scale: str, tmp_path: Path) -> None:
    tower = randomised(FastViTHD(FastViTHDConfig(**FIVE, multi_scale=multi_scale)))
    pixels = torch.rand(2, 3, 128, 128)
    before = tower(pixels)
    count = sum(1 for _ in tower.modules())
    tower.reparameterise()
    after = tower(pixels)
    scale = before.tokens.abs().max()
    assert (after.tokens - before.tokens).abs().max() < 1e-5 * scale
    assert sum(1 for _ in tower.modules()) < count
    tower.save_pretrained(tmp_path)
    again = FastViTHD.from_pretrained(tmp_path).eval()
    assert again.config.fused
    assert torch.equal(again(pixels).tokens, after.tokens)


@torch.no_grad()
def test_attention_is_the_librarys_on_the_flattened_map() -> None:
    block = randomised(MapAttentionBlock(64))
    block.scale2.zero_()
    x = torch.randn(2, 64, 3, 5)
    normed = F.layer_norm(x.permute(0, 2, 3, 1), (64,), block.norm1.weight, block.norm1.bias, 1e-5).flatten(1, 2)
    q, k, v = block.qkv(normed).view(2, 15, 3, 2, 32).permute(2, 0, 3, 1, 4)
    seen = block.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    expected = x + block.scale1 * seen.transpose(1, 2).view(2, 64, 3, 5)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
    assert block.qkv.bias is None


@torch.no_grad()
def test_features_of_all_stages() -> None:
    """Means over each token's area of the earlier maps stand behind the output's channels."""
    plain = randomised(FastViTHD(FastViTHDConfig(**FIVE)))
    fused = FastViTHD(FastViTHDConfig(**FIVE, multi_scale="average")).eval()
    fused.load_state_dict(plain.state_dict())
    pixels = torch.rand(1, 3, 128, 128)
    found, alone = fused(pixels), plain(pixels)
    assert fused.hidden_size == 128 + 8 + 16 + 32 + 32
    assert torch.equal(found.tokens[..., :128], alone.tokens)
    first = alone.feature_maps[0]  # (1, 8, 32, 32): 16 x 16 pixels per token
    torch.testing.assert_close(found.tokens[0, 1, 128:136], first[0, :, :16, 16:].mean((1, 2)))


def test_sizes_that_cannot_be_are_refused() -> None:
    for options, reason in (
        ({"depths": [1, 1], "widths": [16, 32, 64]}, "2 depths, 3 widths"),
        ({"depths": [1, 1], "widths": [16, 40], "attention_stages": 1}, "multiples of 32"),
        ({"depths": [1, 1], "widths": [32, 48], "attention_stages": 0}, "multiple of the one before"),
        ({"image_size": 96}, "multiple of the stride 64"),
    ):
        with pytest.raises(RecipeError, match=reason):
            build("encoder", "fastvit_hd", options)


def published() -> dict[str, Tensor]:
    """Names and shapes of a published checkpoint for `FIVE`: one list of stages, downsamplings and position encodings."""
    widths = FIVE["widths"]
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    for i, (wide, kernel) in enumerate(((3, 3), (1, 3), (8, 1))):
        conv(f"patch_embed.{i}.reparam_conv", 8, wide, kernel, kernel)
    place = 0
    for stage, width in enumerate(widths):
        if stage:
            conv(f"network.{place}.proj.0.lkb_reparam", width, 1, 7, 7)
            conv(f"network.{place}.proj.1.reparam_conv", width, width, 1, 1)
            place += 1
        if stage >= 3:
            conv(f"network.{place}.reparam_conv", width, 1, 7, 7)
            place += 1
        block = f"network.{place}.0"
        if stage >= 3:
            conv(f"{block}.norm", width)
            conv(f"{block}.token_mixer.qkv", 3 * width, width, bias=False)
            conv(f"{block}.token_mixer.proj", width, width)
            shapes[f"{block}.layer_scale_1"] = shapes[f"{block}.layer_scale_2"] = (width, 1, 1)
        else:
            conv(f"{block}.token_mixer.reparam_conv", width, 1, 3, 3)
            shapes[f"{block}.layer_scale"] = (width, 1, 1)
        conv(f"{block}.convffn.conv.conv", width, 1, 7, 7, bias=False)
        conv(f"{block}.convffn.conv.bn", width)
        shapes[f"{block}.convffn.conv.bn.running_mean"] = shapes[f"{block}.convffn.conv.bn.running_var"] = (width,)
        shapes[f"{block}.convffn.conv.bn.num_batches_tracked"] = ()
        conv(f"{block}.convffn.fc1", 4 * width, width, 1, 1)
        conv(f"{block}.convffn.fc2", width, 4 * width, 1, 1)
        place += 1
    assert place == 11
    conv("conv_exp.reparam_conv", 128, 1, 3, 3)
    conv("conv_exp.se.reduce", 8, 128, 1, 1)
    conv("conv_exp.se.expand", 128, 8, 1, 1)
    shapes["head.proj"] = (128, 16)
    stored = {
        f"model.vision_tower.vision_tower.model.{n}": torch.zeros(s, dtype=torch.long) if s == () else torch.rand(s) / 10
        for n, s in shapes.items()
    }
    return {**stored, "model.mm_projector.0.weight": torch.rand(4, 4), "model.layers.0.mlp.up_proj.weight": torch.rand(4, 4)}


def test_published_checkpoints_are_read_by_name(tmp_path: Path) -> None:
    stored = published()
    config = FastViTHDConfig(**FIVE, fused=True)
    tower = FastViTHD(config).eval()
    found = published_weights(stored, 5, 2)
    assert set(found) == set(tower.state_dict())
    tower.load_state_dict(found)
    network = "model.vision_tower.vision_tower.model.network"
    assert torch.equal(tower.stages[1].down[0].fused.weight, stored[f"{network}.1.proj.0.lkb_reparam.weight"])
    assert torch.equal(tower.stages[3].position.fused.bias, stored[f"{network}.6.reparam_conv.bias"])
    assert torch.equal(tower.stages[4].blocks[0].proj.weight, stored[f"{network}.10.0.token_mixer.proj.weight"])
    save_file(stored, tmp_path / "model.safetensors")
    options = {**FIVE, "checkpoint": str(tmp_path)}
    lm = language(tmp_path / "lm", "llama")
    model, _ = compose({"language_model": lm, "encoder": {"fastvit_hd": options}})
    pixels = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        expected = tower(pixels).tokens
        assert expected.isfinite().all()
        assert torch.equal(model.eval().model.encode_images(pixels).tokens, expected)
    stored.pop(f"{network}.0.0.layer_scale")
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"weights missing \['stages.0.blocks.0.scale'\]"):
        compose({"language_model": lm, "encoder": {"fastvit_hd": options}})


@torch.no_grad()
def test_several_scales_of_it() -> None:
    torch.manual_seed(0)
    small = {"depths": (1, 1), "widths": (16, 32), "attention_stages": 1, "image_size": 32}
    wrapped = S2(S2Config(FastViTHDConfig(**small).to_dict(), scales=[1, 2])).eval()
    pixels = torch.rand(1, 3, 64, 64)
    found = wrapped(pixels, hidden_states=True)
    assert (found.grid, found.tokens.shape) == ((4, 4), (1, 16, 128))
    crop = wrapped.towers[0](pixels[:, :, 32:, 32:]).tokens.view(4, 4, 64)
    torch.testing.assert_close(found.tokens.view(4, 4, 128)[3, 3, 64:], crop[2:, 2:].mean((0, 1)), rtol=1e-4, atol=1e-6)
