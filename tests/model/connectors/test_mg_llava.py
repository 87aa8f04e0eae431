"""MG-LLaVA: fusion and pooling written out, boxes on their way from picture to token, and a start that is LLaVA exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor

import argus
from argus.core.errors import DataError, RecipeError, UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.evaluation.scenarios.world import to_samples
from argus.model.boxes import BoxOptions, BoxSource, in_frame, overlap, select
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.connectors.box_pool import box_pool
from argus.model.encoders.fastvit_hd import FastViTHDConfig
from argus.model.encoders.low_high import LowHigh, LowHighConfig
from argus.model.encoders.vitamin import ViTaminConfig
from argus.model.features import VisualFeatures
from argus.model.processor import ArgusProcessor, processor_for
from argus.model.token_map import OBJECT, VISUAL
from argus.training.objectives.sft import SFT, SFTOptions
from argus.training.parts import set_trainable
from argus.world.data import conversation
from tests.model.tiny import LANGUAGE, TOWERS, chat, tokenizer

FINE = FastViTHDConfig(depths=(1, 1), widths=(16, 32), attention_stages=1, image_size=64)  # maps 16 x 16 and 8 x 8
BOXES = [[(0.1, 0.2, 0.5, 0.6), (0.0, 0.0, 1.0, 1.0), (0.55, 0.1, 0.9, 0.3)], [(0.25, 0.25, 0.75, 0.5)]]


def mg(boxes: dict[str, Any] | None = None, encoder: Any = None, **options: Any) -> tuple[Any, ArgusProcessor]:
    """A random model, a ViT at 32 px beside a FastViT at 64 px, and its processor."""
    words = tokenizer()
    ids = {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    tower = encoder or LowHighConfig([TOWERS["vit"], FINE])
    config = ArgusConfig(tower, {**LANGUAGE["llama"], **ids}, connector={"mg_llava": {"bins": 4, **options}}, image_token_id=3)
    model = ArgusForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model, processor_for(model.model, words, boxes)


def trained(**options: Any) -> tuple[Any, ArgusProcessor]:
    """As if it had learned: nothing is zero."""
    model, processor = mg(**options)
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model, processor


def picture(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def inputs(processor: Any, boxes: Any, *questions: str) -> Any:
    asked = questions or ("What colour is the star?",) * len(boxes)
    texts = [processor.apply_chat_template(chat(q), tokenize=False, add_generation_prompt=True) for q in asked]
    return processor([picture(n) for n in range(len(boxes))], texts, boxes=boxes, padding=True, return_tensors="pt")


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


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """A map (C, H, W) read at one point, as RoIAlign does without alignment."""
    _, high, wide = image.shape
    if y < -1 or y > high or x < -1 or x > wide:
        return np.zeros(len(image))
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), high - 1), min(int(x), wide - 1)
    bottom, right = min(top + 1, high - 1), min(left + 1, wide - 1)
    b, a = (0.0 if top == high - 1 else y - top), (0.0 if left == wide - 1 else x - left)
    corner = image[:, top, left] * (1 - b) * (1 - a) + image[:, top, right] * (1 - b) * a
    return corner + image[:, bottom, left] * b * (1 - a) + image[:, bottom, right] * b * a


def roi_mean(image: np.ndarray, box: list[float], bins: int) -> np.ndarray:
    """RoIAlign bin by bin, point by point, and the mean over bins; the box is in cells of the map."""
    width, height = max(box[2] - box[0], 1.0), max(box[3] - box[1], 1.0)
    across, down = math.ceil(width / bins), math.ceil(height / bins)
    total = np.zeros(len(image))
    for row in range(bins):
        for column in range(bins):
            points = [
                bilinear(
                    image,
                    box[1] + (row + (i + 0.5) / down) * height / bins,
                    box[0] + (column + (j + 0.5) / across) * width / bins,
                )
                for i in range(down)
                for j in range(across)
            ]
            total += np.mean(points, 0)
    return total / bins**2


@pytest.mark.parametrize("bins", [1, 3, 7])
def test_pooling_equals_reading_every_point(bins: int) -> None:
    """Small and large boxes, beyond the border, without extent, and on a map that was enlarged before."""
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.standard_normal((2, 3, 5, 8))).float()
    corners = np.sort(rng.random((2, 6, 2, 2)), axis=2).reshape(2, 6, 4)
    corners[0, 0], corners[0, 1], corners[1, 0] = (0, 0, 0, 0), (0, 0, 1, 1), (-0.3, 0.52, 0.41, 1.3)
    boxes = torch.from_numpy(corners).float()
    for size in (None, (15, 20)):
        large = maps if size is None else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        scale = np.array([large.shape[3], large.shape[2]] * 2)
        expected = [[roi_mean(large[b].numpy(), list(box * scale), bins) for box in corners[b]] for b in range(2)]
        torch.testing.assert_close(
            box_pool(maps, boxes, bins, size).double(), torch.tensor(np.array(expected)), rtol=1e-4, atol=1e-5
        )


def test_boxes_are_pooled_in_single_precision_whatever_the_training_has() -> None:
    maps, boxes = torch.randn(1, 3, 16, 16).bfloat16(), torch.tensor([[(0.1, 0.2, 0.5, 0.6)]])
    expected = box_pool(maps, boxes, 7, (20, 20))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(box_pool(maps, boxes, 7, (20, 20)), expected)
    assert expected.dtype == torch.float32


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


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
def test_a_drawn_rectangle_is_pooled_from_its_own_cells(mode: str) -> None:
    """Pixels as the map: the mean over the box is the rectangle's colour, whatever became of the picture."""
    drawn = Image.new("RGB", (200, 100), (0, 0, 0))
    ImageDraw.Draw(drawn).rectangle((70, 20, 129, 79), fill=(255, 0, 0))
    view = build("view", "square", {"mode": mode})
    pixels = torch.from_numpy(view(drawn, 64).pixels.copy()).permute(0, 3, 1, 2).float() / 255
    (box,) = in_frame([(0.38, 0.25, 0.62, 0.75)], view.frame(200, 100))  # a little inside
    pooled = box_pool(pixels, torch.tensor([[box]]), 7)[0, 0]
    torch.testing.assert_close(pooled, torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=0.02)
    assert view(drawn, 64).tiles[0].box == view.frame(200, 100)


def test_boxes_move_with_the_picture() -> None:
    """A picture of 200 x 100: padded above and below, or cut at the left and right."""
    pad, crop = (build("view", "square", {"mode": mode}).frame(200, 100) for mode in ("pad", "crop"))
    assert in_frame([(0.0, 0.0, 0.5, 1.0)], pad) == [(0.0, 0.25, 0.5, 0.75)]
    assert in_frame([(0.0, 0.0, 0.5, 1.0)], crop) == [(0.0, 0.0, 0.5, 1.0)]
    assert in_frame([(0.0, 0.0, 0.2, 1.0), (0.5, 0.5, 1.0, 1.0)], crop) == [(0.5, 0.5, 1.0, 1.0)]  # the first is outside
    assert in_frame([(0.0, 0.0, 0.2, 1.0)], crop) == [(0.0, 0.0, 0.0, 0.0)]


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


@torch.no_grad()
def test_batches_of_different_counts_equal_one_by_one() -> None:
    model, processor = trained()
    together = model(**inputs(processor, BOXES)).logits[:, -1]
    texts = processor.apply_chat_template(chat("What colour is the star?"), tokenize=False, add_generation_prompt=True)
    for number, boxes in enumerate(BOXES):
        alone = processor([picture(number)], texts, boxes=[boxes], return_tensors="pt")
        torch.testing.assert_close(model(**alone).logits[0, -1], together[number], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_generation_with_a_cache_and_with_features_known_before() -> None:
    model, processor = trained()
    batch = inputs(processor, BOXES)
    said = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert (model.model.token_map.kind == OBJECT).sum(1).tolist() == [3, 1]
    features = model.model.get_image_features(batch["pixel_values"], boxes=batch["boxes"])
    text = {k: v for k, v in batch.items() if k not in ("pixel_values", "boxes")}
    assert torch.equal(model.generate(**text, image_features=features, max_new_tokens=3, do_sample=False), said)
    beams = model.generate(**batch, max_new_tokens=3, num_beams=2, do_sample=False)
    assert torch.equal(beams[:, : batch["input_ids"].shape[1]], batch["input_ids"])


@torch.no_grad()
def test_reducers_drop_patches_and_leave_objects() -> None:
    model, processor = trained()
    batch = inputs(processor, BOXES)
    plain = model(**batch).logits
    with argus.attach(model, "fastervlm", keep=1.0):
        assert torch.equal(model(**batch).logits, plain)
    with argus.attach(model, "fastervlm", keep=0.25) as attachment:
        logits = model(**batch).logits
        assert not torch.allclose(logits[:, -1], plain[:, -1])
        assert [(k.before, len(k.indices)) for k in attachment.kept] == [(16, 4), (16, 4)]


def test_stage_one_trains_exactly_three_modules() -> None:
    model, processor = trained()
    model.model.multi_modal_projector.fusion.gate_1.weight.data.mul_(0.01)  # not saturated
    set_trainable(model, ["multi_modal_projector"])
    batch = inputs(processor, BOXES)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {f"model.multi_modal_projector.{n}" for n, _ in model.model.multi_modal_projector.named_parameters()}
    modules = {n.split(".")[2].rstrip("_12") for n in reached}
    assert modules == {"fusion", "linear", "box_linear"}


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


def drawing() -> Any:
    return build("domain", "objects").draw("train", 3, 64, 4)


def test_boxes_of_the_world() -> None:
    scene = drawing()
    sample = to_samples(scene, "objects")[0]
    assert BoxSource(BoxOptions(source="scene"))(sample, [(64, 64)]) == [[t.box for t in scene.scene.things]]
    assert BoxSource(BoxOptions(source="question"))(sample, [(64, 64)]) == [list(scene.questions[0].boxes)]
    assert conversation(scene).metadata["scene_boxes"] == scene.boxes
    noisy = BoxSource(BoxOptions(source="scene", noise=0.1))
    assert noisy(sample, [(64, 64)]) == noisy(sample, [(64, 64)])
    moved = np.array(noisy(sample, [(64, 64)])[0]) - np.array(scene.boxes)
    assert 0 < np.abs(moved).max() < 0.2
    control = BoxSource(BoxOptions(source="random", most=3))
    counts = {len(control(Sample(str(n), []), [(64, 64)])[0]) for n in range(40)}
    assert counts == {1, 2, 3}
    (some,) = control(sample, [(64, 64)])
    assert all(0 <= a <= c <= 1 and 0 <= b <= d <= 1 for a, b, c, d in some)
    with pytest.raises(DataError, match="no 'scene_boxes'"):
        BoxSource(BoxOptions(source="scene"))(Sample("x", []), [(64, 64)])


def test_boxes_from_a_file(tmp_path: Path) -> None:
    """In pixels, joined on the id; of two that are nearly one the better stays."""
    rows = [
        {
            "id": 7,
            "boxes": [[10, 0, 30, 20], [11, 0, 31, 20], [0, 0, 40, 20]],
            "scores": [0.5, 0.9, 0.4],
            "labels": ["a", "a", "b"],
        }
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    source = BoxSource(BoxOptions(source="file", file=str(tmp_path / "boxes.json")))
    assert source(Sample("7", []), [(40, 20)]) == [[(11 / 40, 0.0, 31 / 40, 1.0), (0.0, 0.0, 1.0, 1.0)]]
    with pytest.raises(DataError, match="no boxes for '8'"):
        source(Sample("8", []), [(40, 20)])
    (tmp_path / "boxes.json").write_text("{")
    with pytest.raises(DataError, match="no list of"):
        BoxSource(BoxOptions(source="file", file=str(tmp_path / "boxes.json")))(Sample("7", []), [(40, 20)])


def test_selection_by_label_and_number() -> None:
    boxes = torch.tensor([[i / 10, 0, i / 10 + 0.05, 1] for i in range(6)])
    labels = ["a", "a", "a", "a", "b", "b"]
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert select(boxes, scores, labels, 0.2, 2, 6).tolist() == [5, 4, 3, 2, 1, 0]  # not too many
    assert select(boxes, scores, labels, 0.2, 2, 5).tolist() == [5, 4, 3, 2]  # two of each label
    a, b = torch.tensor([[0, 0, 2, 2.0]]), torch.tensor([[1, 0, 3, 2.0], [5, 5, 6, 6]])
    torch.testing.assert_close(overlap(a, b), torch.tensor([[1 / 3, 0.0]]))


def test_boxes_from_a_detector() -> None:
    _, processor = mg()
    seen = []

    def detector(image: Image.Image) -> list[tuple[float, float, float, float]]:
        seen.append(image.size)
        return [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)]

    processor.detector = detector
    batch = processor([picture()], "<image>\nred", return_tensors="pt")
    assert seen == [(64, 64)]
    assert batch["boxes"].tolist() == [[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]]
    with pytest.raises(DataError, match="2 lists of boxes were given for 1 pictures"):
        processor([picture()], "<image>\nred", boxes=[[], []])


def test_training_rows_hold_the_objects_of_their_pictures() -> None:
    """All questions of a picture share its boxes, and are learned as if asked alone."""
    model, processor = trained(boxes={"source": "scene"})
    sft = SFT(SFTOptions())
    sft.bind(model, processor)
    scenes = [build("domain", "objects").draw("train", n, 64, 3) for n in (3, 4)]
    counts = [len(scene.boxes) for scene in scenes]
    assert counts[0] != counts[1]
    batch = sft.collate([(scene, None) for scene in scenes])
    assert (batch["input_ids"] == 3).sum(1).tolist() == [16 + count for count in counts]
    alone = [sft.collate([(scene, None)]) for scene in scenes]
    answers = [(b["labels"] != -100).sum() for b in alone]
    losses = [sft.loss(model, b)[0] for b in alone]
    expected = sum(n * loss for n, loss in zip(answers, losses, strict=True)) / sum(answers)
    torch.testing.assert_close(sft.loss(model, batch)[0], expected, rtol=1e-4, atol=1e-5)


def test_boxes_of_a_question_put_it_in_a_row_of_its_own() -> None:
    model, processor = trained(boxes={"source": "question"})
    assert processor.depends_on_question
    sft = SFT(SFTOptions())
    sft.bind(model, processor)
    scene = drawing()
    batch = sft.collate([(scene, None)])
    assert len(batch["input_ids"]) == len(scene.questions)
    assert (batch["boxes"][..., 0] >= 0).sum(1).tolist() == [max(len(q.boxes), 1) for q in scene.questions]


@torch.no_grad()
@pytest.mark.parametrize("source", ["scene", "question"])
def test_evaluation_shares_pictures_where_their_boxes_are_the_same(source: str) -> None:
    model, processor = trained(boxes={"source": source})
    local = LocalModel(model, processor)
    assert local.shares == (source == "scene")
    scenes = [build("domain", "objects").draw("test", n, 64, 3) for n in (3, 4)]
    samples = [(scene.id, s) for scene in scenes for s in to_samples(scene, "objects") if s.options]
    asked = [Question(group, s, list(s.images())) for group, s in samples]
    found = local.score(asked, mean=False)
    assert local.shares == (source == "scene")
    for question, scores in zip(asked, found, strict=True):
        batch = processor.encode([question.sample])
        logits = model(**batch).logits[0, -1].log_softmax(-1)
        for option, score in zip(question.sample.options, scores, strict=True):
            ids = processor.tokenizer(f" {option}", add_special_tokens=False)["input_ids"]
            assert score <= logits[ids[0]] + 1e-3


@torch.no_grad()
def test_saving_and_loading_and_bf16(tmp_path: Path) -> None:
    model, processor = trained(boxes={"source": "scene", "noise": 0.1})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = AutoModelForImageTextToText.from_pretrained(tmp_path).eval(), AutoProcessor.from_pretrained(tmp_path)
    batch = inputs(processor, BOXES)
    assert reader.box_source.options == processor.box_source.options
    assert torch.equal(inputs(reader, BOXES)["boxes"], batch["boxes"])
    plain = model(**batch).logits
    assert torch.equal(again(**batch).logits, plain)
    half = model.bfloat16()(**{**batch, "pixel_values": batch["pixel_values"].bfloat16()}).logits
    torch.testing.assert_close(half.float(), plain, rtol=0.1, atol=0.1 * float(plain.std()) + 0.1)


def test_options_of_boxes() -> None:
    _, processor = mg(boxes={"source": "scen"})
    with pytest.raises(RecipeError, match="source"):
        processor.box_source  # noqa: B018
    _, processor = mg(boxes={"source": "file"})
    with pytest.raises(RecipeError, match="a file belongs to"):
        processor.box_source  # noqa: B018


def test_several_pictures_have_their_own_boxes() -> None:
    _, processor = mg()
    batch = processor([picture(), picture(1)], "<image> <image>\nred", boxes=BOXES, return_tensors="pt")
    assert (batch["boxes"][..., 0] >= 0).sum(1).tolist() == [3, 1]
    sample = Sample(
        "s", [Message("user", [ImagePart(picture()), ImagePart(picture(1)), TextPart("red")])], metadata={"scene_boxes": BOXES[0]}
    )
    found = BoxSource(BoxOptions(source="scene"))(sample, [(64, 64)] * 2)
    assert [len(some) for some in found] == [3, 0]
