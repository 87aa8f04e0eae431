"""S2: several scales of one encoder; the plain encoder at scale 1, brute force over crops elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.registry import build
from argus.model.compose import compose
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.base import Encoder, build_tower
from argus.model.encoders.s2 import S2, S2Config, merge, split
from argus.model.encoders.vit import ViTConfig
from argus.model.load import load
from tests.model.test_load import language
from tests.model.tiny import LANGUAGE, SMALL, TOWERS


def s2(tower: str = "vit", **options: Any) -> S2:
    torch.manual_seed(0)
    return S2(S2Config(TOWERS[tower].to_dict(), **options)).eval()


def brute(tower: Any, pixels: Tensor, scales: list[int]) -> Tensor:
    """Every crop of every scale encoded alone, pooled by numpy: (B, N, D K)."""
    side = tower.image_size
    out = []
    for scale in scales:
        resized = F.interpolate(pixels, size=(scale * side, scale * side), mode="bicubic", align_corners=False)
        rows = []
        for r in range(scale):
            row = []
            for c in range(scale):
                crop = resized[:, :, r * side : (r + 1) * side, c * side : (c + 1) * side]
                row.append(tower(crop).tokens.view(len(pixels), 4, 4, -1).numpy())
            rows.append(np.concatenate(row, 2))
        whole = np.concatenate(rows, 1)  # (B, 4 scale, 4 scale, D)
        b, _, _, d = whole.shape
        out.append(whole.reshape(b, 4, scale, 4, scale, d).mean((2, 4)).reshape(b, 16, d))
    return torch.from_numpy(np.concatenate(out, -1))


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_scale_one_is_the_plain_encoder_bit_for_bit(tower: str) -> None:
    wrapped = s2(tower, scales=[1])
    pixels, inner = torch.randn(2, 3, 32, 32), wrapped.towers[0]
    asked = {"cls_attention": wrapped.has_cls, "hidden_states": True, "pooled": True}
    found, plain = wrapped(pixels, **asked), inner(pixels, **asked)
    assert isinstance(wrapped, Encoder)
    assert found.grid == plain.grid == (4, 4)
    for name in ("tokens", "cls", "prefix", "cls_attention", "pooled"):
        a, b = getattr(found, name), getattr(plain, name)
        assert (a is None and b is None) or torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(found.hidden_states, plain.hidden_states, strict=True))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 3), (6, 4)])
def test_merge_undoes_split_and_crops_are_row_major_sample_minor(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 12, 12)
    crops = split(x, *shape)
    assert torch.equal(merge(crops, *shape), x)
    h, w = 12 // shape[0], 12 // shape[1]
    for r in range(shape[0]):
        for c in range(shape[1]):
            for sample in range(2):
                assert torch.equal(crops[(r * shape[1] + c) * 2 + sample], x[sample, :, r * h : (r + 1) * h, c * w : (c + 1) * w])


@pytest.mark.parametrize("tower", ["vit", "clip", "siglip", "dinov2"])
@torch.no_grad()
def test_it_equals_brute_force_over_crops(tower: str) -> None:
    wrapped = s2(tower, scales=[1, 2, 3])
    assert (wrapped.image_size, wrapped.patch_size, wrapped.hidden_size) == (96, 24, 96)
    pixels = torch.randn(2, 3, 96, 96)
    found = wrapped(pixels)
    assert found.tokens.shape == (2, 16, 96)
    assert (found.tokens - brute(wrapped.towers[0], pixels, [1, 2, 3])).abs().max() < 1e-5


@torch.no_grad()
def test_prefix_tokens_are_means_over_a_scales_crops() -> None:
    wrapped = s2("clip", scales=[1, 2])
    pixels = torch.randn(2, 3, 64, 64)
    found = wrapped(pixels, cls_attention=True, pooled=True)
    crops = [pixels[:, :, r : r + 32, c : c + 32] for r in (0, 32) for c in (0, 32)]
    inner = [wrapped.towers[0](crop, pooled=True) for crop in crops]
    torch.testing.assert_close(found.cls[:, 32:], torch.stack([f.cls for f in inner]).mean(0))
    torch.testing.assert_close(found.pooled[:, 32:], torch.stack([f.pooled for f in inner]).mean(0))
    assert torch.equal(found.prefix[:, 0], found.cls)
    assert (found.cls_attention.sum(-1) < 1).all()  # a share of the attention: the CLS token's own part is cut
    assert (found.cls_attention.sum(-1) > 0.8).all()


@torch.no_grad()
def test_crops_one_by_one_give_the_same() -> None:
    whole, one_by_one = s2(scales=[1, 2]), s2(scales=[1, 2], split_forward=True)
    one_by_one.load_state_dict(whole.state_dict())
    pixels = torch.randn(3, 3, 64, 64)
    a, b = whole(pixels, cls_attention=True, hidden_states=True), one_by_one(pixels, cls_attention=True, hidden_states=True)
    for name in ("tokens", "cls", "cls_attention"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-6)
    torch.testing.assert_close(a.hidden_states[-1], b.hidden_states[-1], rtol=0, atol=1e-6)
    assert torch.equal(a.hidden_states[-2][:, 1:], a.tokens)


@torch.no_grad()
def test_channels_stand_in_the_order_of_the_scales() -> None:
    forward, backward = s2(scales=[1, 2]), s2(scales=[2, 1], output_scale=1)
    backward.load_state_dict(forward.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    a, b = forward(pixels).tokens, backward(pixels).tokens
    assert torch.equal(a, torch.cat([b[..., 32:], b[..., :32]], -1))


@torch.no_grad()
def test_the_largest_scale_can_give_the_grid() -> None:
    wrapped = s2(scales=[1, 2], output_scale=-1)
    pixels = torch.randn(1, 3, 64, 64)
    found = wrapped(pixels)
    assert (wrapped.patch_size, found.grid) == (8, (8, 8))
    coarse = s2(scales=[1])
    coarse.load_state_dict(wrapped.state_dict())
    small = F.interpolate(pixels, size=(32, 32), mode="bicubic", align_corners=False)
    repeated = coarse(small).tokens.view(4, 4, 32).repeat_interleave(2, 0).repeat_interleave(2, 1).view(64, 32)
    torch.testing.assert_close(found.tokens[0, :, :32], repeated)


@pytest.mark.parametrize("way", ["resize", "pad"])
@torch.no_grad()
def test_any_shape_equals_the_square_path_on_squares(way: str) -> None:
    square, any_shape = s2(scales=[1, 2]), s2(scales=[1, 2], split=way)
    any_shape.load_state_dict(square.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    assert torch.equal(square(pixels).tokens, any_shape(pixels).tokens)


@torch.no_grad()
def test_pictures_of_any_shape() -> None:
    """A tower with fixed positions reads 64 x 96 px: crops have its side, and what was padded leaves no token."""
    wide = torch.randn(2, 3, 64, 96)
    for way in ("resize", "pad"):
        found = s2("clip", scales=[1, 2], split=way)(wide)
        assert (found.grid, found.tokens.shape) == ((4, 6), (2, 24, 64))
        assert found.tokens.isfinite().all()
    narrow = torch.cat([wide[:1, :, :, :72]], -1)  # 72 px: two crops, and a third that is 8 px of picture and 24 px of zeros
    padded = s2("clip", scales=[2], split="pad", image_size=64)
    last = padded.towers[0](F.pad(narrow[:, :, :32, 64:], (0, 24))).tokens.view(4, 4, 32)
    found = padded(narrow)
    assert found.grid == (8, 9)
    torch.testing.assert_close(found.tokens.view(8, 9, 32)[:4, 8], last[:, 0], rtol=0, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"64 x 72 px cuts 36 px into 2 crops of 18 px.*reads 32 px\. Use split"):
        s2("clip", scales=[1, 2])(torch.randn(1, 3, 64, 72))


@torch.no_grad()
def test_padding_leaves_no_patch_where_the_picture_ends_with_one() -> None:
    """232 px are 29 patches of 8 in three crops of 12; 232 / 288 * 36 is a little more than 29 in floating point."""
    wrapped = S2(S2Config(ViTConfig(**{**SMALL, "image_size": 96}).to_dict(), scales=[1], split="pad")).eval()
    pixels = torch.randn(1, 3, 96, 232)
    found = wrapped(pixels)
    assert found.grid == (12, 29)
    last = wrapped.towers[0](F.pad(pixels[..., 192:], (0, 56))).tokens.view(12, 12, -1)
    torch.testing.assert_close(found.tokens.view(12, 29, -1)[:, 24:], last[:, :5], rtol=0, atol=1e-5)


def test_scales_that_do_not_fit_are_refused_with_the_way_out() -> None:
    with pytest.raises(UnsupportedError, match=r"scale 1.3 cuts 42 px into 2 crops of 21 px.*multiples of 8 px\. Use split"):
        s2(scales=[1, 1.3])
    with pytest.raises(UnsupportedError, match=r"scale 1.5 .* crops of 24 px, but the encoder reads 32 px"):
        s2("clip", scales=[1, 1.5])
    assert s2("clip", scales=[1, 1.5], split="resize", image_size=64)(torch.randn(1, 3, 64, 64)).tokens.shape == (1, 16, 64)
    assert s2(scales=[1, 1.5])(torch.randn(1, 3, 48, 48)).tokens.shape == (1, 16, 64)  # Argus's ViT interpolates positions
    with pytest.raises(UnsupportedError, match="choose another image_size"):
        s2(scales=[1, 2], image_size=33)
    with pytest.raises(RecipeError, match="option 'encoder' is required"):
        build("encoder", "s2", {})
    for options, reason in (({"scales": [0, 1]}, "must be positive, not 0"), ({"output_scale": 2}, "no scale 2 among 2")):
        with pytest.raises(RecipeError, match=reason):
            build("encoder", "s2", {"encoder": {"vit": {}}, **options})


@torch.no_grad()
def test_bf16() -> None:
    wrapped = s2(scales=[1, 2])
    pixels = torch.randn(1, 3, 64, 64)
    expected = wrapped(pixels).tokens
    found = wrapped.bfloat16()(pixels.bfloat16()).tokens
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)


def test_it_is_a_plug_in_by_config_and_saves(tmp_path: Path) -> None:
    """A stored CLIP tower inside S2 inside a composed model: same features, and again after saving."""
    torch.manual_seed(1)
    clip = CLIPVisionModel(TOWERS["clip"]).eval()
    clip.save_pretrained(tmp_path / "clip")
    stored = {"transformers": {"from": str(tmp_path / "clip"), "feature_layer": -1}}
    lm = language(tmp_path / "lm", "llama")
    model, processor = compose({"language_model": lm, "encoder": {"s2": {"encoder": stored, "scales": [1, 2]}}})
    assert processor.image_processor.size == 64
    assert model.model.multi_modal_projector.vision_width == 64
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = model.eval().model.encode_images(pixels).tokens
        small = F.interpolate(pixels, size=(32, 32), mode="bicubic", align_corners=False)
        assert torch.equal(found[..., :32], clip(small).last_hidden_state[:, 1:])
        model.save_pretrained(tmp_path / "made")
        processor.save_pretrained(tmp_path / "made")
        again, _ = load(str(tmp_path / "made"))
        assert torch.equal(again.model.encode_images(pixels).tokens, found)
        assert torch.equal(again.model.get_image_features(pixels), model.model.get_image_features(pixels))
    model.model.vision_tower.save_pretrained(tmp_path / "tower")
    made, _ = compose({"language_model": lm, "encoder": str(tmp_path / "tower")})
    assert torch.equal(made.eval().model.encode_images(pixels).tokens, found)


def test_it_trains_and_answers_in_a_composed_model() -> None:
    config = ArgusConfig(S2Config(TOWERS["vit"].to_dict()).to_dict(), {**LANGUAGE["llama"], "vocab_size": 64}, image_token_id=3)
    model = ArgusForConditionalGeneration(config)
    assert isinstance(model.model.vision_tower, S2)
    assert build_tower(config.vision_config).hidden_size == 64
    ids = torch.tensor([[1, *[3] * 16, 7, 8, 9]])
    loss = model(input_ids=ids, pixel_values=torch.randn(1, 3, 64, 64), labels=ids).loss
    loss.backward()
    assert model.model.vision_tower.towers[0].patch_embed.weight.grad.abs().max() > 0
