"""Towers of transformers that published systems are made of: one output type, composed models, and the published sizes.

InternViT (NVLM, arXiv 2409.11402; InternVL 1.5, arXiv 2404.16821), SigLIP-so400m, DINOv2, and ConvNeXt (MG-LLaVA's large view,
arXiv 2406.17770). Weights are random; the published sizes are built without memory.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel, PretrainedConfig, Qwen2Config
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from argus.core.errors import ModelError, UnsupportedError
from argus.core.registry import build
from argus.model.compose import compose
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.base import Encoder, build_tower
from argus.model.encoders.low_high import LowHighConfig
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.encoders.transformers_tower import TransformersTower
from argus.model.features import VisualFeatures
from argus.model.image_processor import normalise
from argus.model.load import load
from tests.model.connectors.composed import composed, picture
from tests.model.test_load import language, rewrite

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 4}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 128}
FAMILIES: dict[str, dict[str, Any]] = {
    "internvl_vision": {**SMALL, "intermediate_size": 48, "use_qk_norm": True, "norm_type": "rms_norm"},
    "siglip_vision_model": {**SMALL, "intermediate_size": 48},
    "siglip2_vision_model": {**SMALL, "intermediate_size": 48, "num_patches": 64},
    "dinov2": {**SMALL, "mlp_ratio": 2},
    "convnext": STAGES,
    "convnextv2": STAGES,
}


def config(kind: str, **more: Any) -> PretrainedConfig:
    return AutoConfig.for_model(kind, **{**FAMILIES[kind], **more})


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_one_output_type(kind: str) -> None:
    """Tokens in raster order on their grid, alike alone and in a batch, in bf16 too; maps where there are stages."""
    torch.manual_seed(0)
    tower: Any = build_tower(config(kind)).eval()
    assert isinstance(tower, Encoder)
    pixels = torch.randn(2, 3, tower.image_size, tower.image_size)
    found = tower(pixels, pooled=True)
    side = tower.image_size // tower.patch_size
    assert (found.grid, found.tokens.shape) == ((side, side), (2, side * side, 32))
    assert found.pooled.shape == (2, 32)
    torch.testing.assert_close(tower(pixels[1:]).tokens, found.tokens[1:], rtol=1e-4, atol=1e-5)
    moved = pixels.clone()
    moved[..., -tower.patch_size :, -tower.patch_size :] += 2
    assert int((tower(moved).tokens - found.tokens)[0].norm(dim=-1).argmax()) == side * side - 1
    half = tower.bfloat16()(pixels.bfloat16()).tokens
    torch.testing.assert_close(half.float(), found.tokens, rtol=0.1, atol=0.1 * float(found.tokens.std()) + 0.05)


@pytest.mark.parametrize("kind", ["internvl_vision", "dinov2", "convnext"])
@torch.no_grad()
def test_pictures_of_other_sizes(kind: str) -> None:
    tower: Any = build_tower(config(kind)).eval()
    found = tower(torch.randn(1, 3, tower.image_size, tower.image_size + 2 * tower.patch_size))
    side = tower.image_size // tower.patch_size
    assert (found.grid, found.tokens.shape[1]) == ((side, side + 2), side * (side + 2))


@torch.no_grad()
def test_the_maps_of_a_convnext_are_its_stages() -> None:
    torch.manual_seed(0)
    tower: Any = build_tower(config("convnext")).eval()
    pixels = torch.randn(1, 3, 128, 128)
    x, maps = tower.tower.embeddings(pixels), []
    for stage in tower.tower.encoder.stages:
        maps.append(x := stage(x))
    found = tower(pixels)
    assert [tuple(m.shape[1:]) for m in found.feature_maps] == [(8, 32, 32), (16, 16, 16), (24, 8, 8), (32, 4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(found.feature_maps, maps, strict=True))
    assert torch.equal(found.tokens[0, 6], maps[-1][0, :, 1, 2])
    with pytest.raises(UnsupportedError, match="no CLS token"):
        tower(pixels, cls_attention=True)


@torch.no_grad()
def test_internvit_is_the_librarys_at_the_layer_asked_for() -> None:
    """The tower's own states; its CLS row with the norm of queries and keys is held to the full map in `test_encoders`."""
    torch.manual_seed(0)
    tower: Any = TransformersTower(config("internvl_vision")).eval()
    pixels = torch.randn(1, 3, 32, 32)
    states = tower.tower(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(tower(pixels).tokens, states[-2][:, 1:])
    with pytest.raises(UnsupportedError, match="square pictures in square patches, not of"):
        TransformersTower(config("internvl_vision", patch_size=(4, 8)))


@pytest.mark.parametrize("view", [{"nvlm": {"thumbnail_tag": None, "tags": "none"}}, "internvl"], ids=["nvlm", "internvl"])
@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_they_compose_with_tiles_and_pixel_shuffle(kind: str, view: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NVLM-D's and InternVL's way: tiles, the tower, 2 x 2 patches side by side; answers, and the same from files."""
    encoder = {"transformers": {"model_type": kind, **FAMILIES[kind]}}
    model, processor = composed(monkeypatch, "pixel_shuffle", view, encoder)
    size = model.model.vision_tower.image_size
    inputs = processor([picture(0, 2 * size, size)], "<image>\nHow many?", return_tensors="pt")
    cells = (size // model.model.vision_tower.patch_size // 2) ** 2
    assert len(inputs["pixel_values"]) == 3  # two tiles and the thumbnail
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 3 * cells
    said = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load(str(tmp_path))
    assert torch.equal(again.eval()(**inputs).logits, model(**inputs).logits)
    assert torch.equal(again.generate(**inputs, max_new_tokens=3, do_sample=False), said)


@pytest.mark.parametrize("kind", ["internvl_vision", "convnext"])
def test_stored_towers_bring_their_weights(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    vision = AutoModel.from_config(config(kind)).eval()
    vision.save_pretrained(tmp_path / "vision")
    spec = {"language_model": language(tmp_path / "lm", "llama"), "encoder": str(tmp_path / "vision")}
    tower = compose(spec)[0].model.vision_tower
    assert all(torch.equal(a, b) for a, b in zip(tower.tower.parameters(), vision.parameters(), strict=True))
    rewrite(tmp_path / "vision", lambda weights: weights.pop(next(k for k in weights if "bias" in k and "embeddings" not in k)))
    with pytest.raises(ModelError, match="weights are missing"):
        compose(spec)


PUBLISHED = {  # millions of parameters, patches per side
    # InternVL 1.5's and NVLM's tower; its model card says 5540.2 M.
    "InternViT-6B-448": (
        ("internvl_vision", {"hidden_size": 3200, "num_hidden_layers": 45, "num_attention_heads": 25, "intermediate_size": 12800,
                             "image_size": 448, "patch_size": 14, "norm_type": "rms_norm", "use_qk_norm": True}),
        5540.2, 32,
    ),
    # MG-LLaVA's two; 304 M is CLIP's ViT-L/14 (arXiv 2103.00020), 197.8 M ConvNeXt-L with a head for 1000 classes.
    "CLIP-L-336": (
        ("clip_vision_model", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
                               "image_size": 336, "patch_size": 14}),
        304, 24,
    ),
    "ConvNeXt-L-320": (
        ("convnext", {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3], "image_size": 320}),
        197.8 - 1537 * 1000 / 1e6, 10,
    ),
    "SigLIP-so400m-384": (
        ("siglip_vision_model", {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16,
                                 "intermediate_size": 4304, "image_size": 384, "patch_size": 14}),
        428, 27,
    ),
    "DINOv2-L": (
        ("dinov2", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                    "image_size": 518, "patch_size": 14}),
        304, 37,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    (kind, sizes), millions, side = PUBLISHED[name]
    with torch.device("meta"):
        tower: Any = build_tower(AutoConfig.for_model(kind, **sizes))
        found = tower(torch.empty(1, 3, tower.image_size, tower.image_size))
    assert count(tower) == pytest.approx(millions * 1e6, rel=0.01)
    assert (found.grid, found.tokens.shape) == ((side, side), (1, side * side, tower.hidden_size))


def test_nvlm_at_72b() -> None:
    """InternViT-6B -> (tiles, 256, 12800) -> 29568 -> 8192 -> Qwen2-72B, of which 72.7 billion are published."""
    (kind, sizes), millions, _ = PUBLISHED["InternViT-6B-448"]
    text = Qwen2Config(
        vocab_size=152064, hidden_size=8192, intermediate_size=29568, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        vision = AutoConfig.for_model(kind, **sizes)
        parts = {"connector": {"pixel_shuffle": {"hidden": 29568}}, "view": {"nvlm": {}}, "tag_length": 5}
        model = ArgusForConditionalGeneration(ArgusConfig(vision, text, **parts)).model
        seen = torch.empty(7, 1024, 3200)
        tokens = model.multi_modal_projector(VisualFeatures(seen, (32, 32)))
    assert tokens.shape == (7, 256, 8192)
    assert count(model.multi_modal_projector) == 2 * 12800 + 12800 * 29568 + 29568 * 8192
    assert count(model.vision_tower) == pytest.approx(millions * 1e6, rel=0.01)
    assert count(model.language_model) + 152064 * 8192 == pytest.approx(72.7e9, rel=0.01)


def test_mg_llavas_pair_at_its_sizes() -> None:
    """CLIP-L at 336 px beside ConvNeXt-L at 768: 576 tokens of 1024, maps from 192 x 192 to 24 x 24, object tokens of 2880."""
    (low, low_sizes), millions, _ = PUBLISHED["CLIP-L-336"]
    (high, high_sizes), more, _ = PUBLISHED["ConvNeXt-L-320"]
    pair = LowHighConfig([AutoConfig.for_model(low, **low_sizes), AutoConfig.for_model(high, **high_sizes)], 768)
    with torch.device("meta"):
        tower: Any = build_tower(pair)
        tower.statistics = tower.statistics[:1] * 2  # numbers cannot be made without memory
        found = tower(torch.empty(1, 3, 768, 768))
        sizes = {"vision_width": tower.hidden_size, "text_width": 4096, "map_widths": tower.map_widths}
        connector = build("connector", "mg_llava", **sizes)
        fused = connector(found)
    assert (tower.patch_size, found.tokens.shape, fused.shape) == (32, (1, 576, 1024), (1, 576, 4096))
    expected = [(192, 192, 192), (384, 96, 96), (768, 48, 48), (1536, 24, 24)]
    assert [tuple(m.shape[1:]) for m in found.feature_maps] == expected
    assert connector.box_linear_1.in_features == sum(tower.map_widths) == 2880
    assert count(tower) == pytest.approx((millions + more) * 1e6, rel=0.01)


@torch.no_grad()
def test_siglip_2_reads_a_picture_of_any_shape_as_among_longer_ones() -> None:
    """Patches, positions and states are those of transformers' model, which pads rows of patches and masks them."""
    torch.manual_seed(0)
    tower: Any = build_tower(config("siglip2_vision_model")).eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))
    padded = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=16)(picture, return_tensors="pt")
    assert padded["spatial_shapes"].tolist() == [[3, 5]]
    expected = tower.tower(**padded, output_hidden_states=True).hidden_states[-2][:, :15]
    found = tower(normalise(np.asarray(picture)[None], *pixel_statistics(tower.config)))
    assert found.grid == (3, 5)
    torch.testing.assert_close(found.tokens, expected, rtol=1e-4, atol=1e-5)
