"""MG-LLaVA: fusion and object tokens written out, a start that is LLaVA exactly, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.encoders.low_high import LowHigh, LowHighConfig
from argus.model.encoders.vitamin import ViTaminConfig
from argus.model.features import VisualFeatures
from argus.model.token_map import OBJECT, VISUAL
from tests.model.connectors.mg import BOXES, FINE, inputs, mg, picture, trained
from tests.model.connectors.roi import roi_mean
from tests.model.tiny import TOWERS


@torch.no_grad()
def test_at_first_the_tokens_are_those_of_the_small_view() -> None:
    model, processor = mg()
    batch = inputs(processor, BOXES)
    seen = model.model.encode_images(batch["pixel_values"])
    assert torch.equal(model.model.multi_modal_projector.fuse(seen), seen.tokens)
    small = F.interpolate(batch["pixel_values"], size=(32, 32), mode="bilinear")
    assert torch.equal(seen.tokens, model.model.vision_tower.towers[0](small).tokens)
    assert [tuple(m.shape[1:]) for m in seen.feature_maps] == [(16, 16, 16), (32, 8, 8)]


@torch.no_grad()
def test_a_placeholder_per_box_and_one_for_no_box() -> None:
    model, processor = mg()
    for boxes, count in (([], 1), (BOXES[0], 3), (BOXES[0] * 4, 12)):
        batch = inputs(processor, [boxes])
        assert int((batch["input_ids"] == 3).sum()) == 16 + count
        (features,) = model.model.get_image_features(batch["pixel_values"], boxes=batch["boxes"])
        assert len(features) == 16 + count
    none, cornered = inputs(processor, [[]]), inputs(processor, [[(0.0, 0.0, 0.0, 0.0)]])
    assert torch.equal(none["boxes"], cornered["boxes"])


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["sum", "concat_gate", "concat", "raw", "none"])
def test_fusion_is_the_formula(fusion: str) -> None:
    torch.manual_seed(0)
    module = build("connector", "mg_llava", {"fusion": fusion}, vision_width=8, text_width=6, map_widths=(4, 10))
    for parameter in module.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.5)
    low, last = torch.randn(3, 12, 8), torch.randn(3, 10, 3, 4)
    found = module.fuse(VisualFeatures(low, (3, 4), feature_maps=(torch.randn(3, 4, 6, 8), last)))
    if fusion in ("raw", "none"):
        expected = torch.cat([low, last.flatten(2).transpose(1, 2)], -1) if fusion == "raw" else low
        assert torch.equal(found, expected)
        return
    part = module.fusion
    padded = F.pad(low.transpose(1, 2).view(3, 8, 3, 4), (3, 3, 3, 3))
    windows = padded.unfold(2, 7, 1).unfold(3, 7, 1)  # (B, C, 3, 4, 7, 7)
    deep = torch.einsum("bcyxij,cij->bcyx", windows, part.low_conv.weight[:, 0]) + part.low_conv.bias[:, None, None]
    moved = F.gelu(deep).flatten(2).transpose(1, 2) @ part.low_proj.weight[:, :, 0, 0].T + part.low_proj.bias
    near = low + moved  # L'
    rows = last.flatten(2).transpose(1, 2)
    far = F.gelu(rows @ part.high_conv.weight[:, :, 0, 0].T + part.high_conv.bias)
    far = far @ part.high_proj.weight[:, :, 0, 0].T + part.high_proj.bias  # H
    hidden = F.gelu(torch.cat([near, far], -1).mean(1) @ part.gate_1.weight[:, :, 0, 0].T + part.gate_1.bias)
    gate = torch.tanh(hidden @ part.gate_2.weight[:, :, 0, 0].T + part.gate_2.bias)[:, None]  # (B, 1, 1): one a picture
    assert gate.abs().max() < 1
    expected = {
        "sum": near + gate * far,
        "concat_gate": torch.cat([near, gate * far], -1),
        "concat": torch.cat([near, far], -1),
    }[fusion]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        module = build("connector", "mg_llava", vision_width=1024, text_width=4096, map_widths=(192, 384, 768, 1536))
    assert module.box_linear_1.in_features == 2880
    assert module.fusion.high_conv.weight.shape[:2] == (1536, 1536)
    assert (module.fusion.gate_1.weight.shape[:2], module.fusion.gate_2.weight.shape[:2]) == ((512, 2048), (1, 512))


@torch.no_grad()
@pytest.mark.parametrize("read", ["all", "levels", "last"])
def test_a_box_is_read_from_the_stages(read: str) -> None:
    model, processor = trained(box_features=read, level_width=20, last_bins=2)
    batch, connector = inputs(processor, BOXES), model.model.multi_modal_projector
    seen = model.model.encode_images(batch["pixel_values"])
    fine, coarse = seen.feature_maps
    found = connector.objects(seen, batch["boxes"])
    assert found.shape == (4, 48)
    wide = F.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)
    for token, (number, box) in zip(found, [(0, b) for b in BOXES[0]] + [(1, b) for b in BOXES[1]], strict=True):
        in_cells = {side: [side * v for v in box] for side in (8, 16)}
        if read == "all":
            pooled = roi_mean(torch.cat([fine, wide], 1)[number].double().numpy(), in_cells[16], 4)
        elif read == "last":
            pooled = roi_mean(coarse[number].double().numpy(), in_cells[8], 2)
        else:
            stages = [
                roi_mean(fine[number].double().numpy(), in_cells[16], 4),
                roi_mean(coarse[number].double().numpy(), in_cells[8], 4),
            ]
            pooled = sum(f(torch.tensor(x).float()) for f, x in zip(connector.level_maps, stages, strict=True)).double().numpy()
        expected = connector.box_linear_2(F.gelu(connector.box_linear_1(torch.tensor(pooled).float())))
        torch.testing.assert_close(token, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_object_tokens_follow_their_picture_in_the_order_of_the_boxes() -> None:
    model, processor = trained()
    batch = inputs(processor, BOXES)
    model(**batch)
    known = model.model.token_map
    for row, count in enumerate((3, 1)):
        where = (known.kind[row] == OBJECT).nonzero().flatten()
        assert where.tolist() == list(range(int((known.kind[row] == VISUAL).nonzero().max()) + 1, int(where[0]) + count))
        assert (known.image[row, where] == 0).all()
    written = processor.token_map(batch)
    assert torch.equal(written.kind[batch["attention_mask"] == 1], known.kind[batch["attention_mask"] == 1])
    first, _ = model.model.get_image_features(batch["pixel_values"], boxes=batch["boxes"])
    turned, _ = model.model.get_image_features(batch["pixel_values"], boxes=batch["boxes"][:, [2, 0, 1]])
    torch.testing.assert_close(turned[16:], first[[18, 16, 17]])
    assert torch.equal(turned[:16], first[:16])
    fewer = inputs(processor, [BOXES[0][:2], BOXES[1]])
    short, _ = model.model.get_image_features(fewer["pixel_values"], boxes=fewer["boxes"])
    torch.testing.assert_close(short, first[:18])


@pytest.mark.parametrize("high", [FINE, ViTaminConfig(conv_widths=(8, 16), hidden_size=32, num_hidden_layers=2,
                                                     num_attention_heads=2, image_size=64), TOWERS["dinov2"]])  # fmt: skip
@torch.no_grad()
def test_any_pair_of_encoders(high: Any) -> None:
    model, processor = mg(encoder=LowHighConfig([TOWERS["clip"], high], 64))
    maps = model.model.encode_images(torch.randn(1, 3, 64, 64)).feature_maps
    assert tuple(m.shape[1] for m in maps) == model.model.vision_tower.map_widths
    assert model(**inputs(processor, BOXES)).logits.isfinite().all()


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="pictures of 50 px do not fit 4 patches"):
        LowHigh(LowHighConfig([TOWERS["vit"], FINE], 50))
    with pytest.raises(UnsupportedError, match="gives one"):
        mg(encoder=TOWERS["vit"])
    config = mg()[0].config
    config.view = {"internvl": {}}
    with pytest.raises(UnsupportedError, match="in one tile"):
        ArgusForConditionalGeneration(config)


def test_models_without_objects_refuse_boxes() -> None:
    model, processor = mg(objects=False)
    batch = processor([picture()], "<image>\nred", return_tensors="pt")
    assert "boxes" not in batch
    with pytest.raises(UnsupportedError, match="reads no boxes"):
        processor([picture()], "<image>\nred", boxes=BOXES[:1])
    with pytest.raises(UnsupportedError, match="reads no instructions"):
        processor([picture()], "<image>\nred", instructions=["red"])
    model.model.multi_modal_projector = build("connector", "mlp", vision_width=32, text_width=48)
    with pytest.raises(UnsupportedError, match="a MLP connector reads no boxes"):
        model(**batch, boxes=torch.zeros(1, 1, 4))
