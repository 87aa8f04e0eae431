"""MG-LLaVA in batches, generation, reduction, training, evaluation and files: pictures with different numbers of boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import argus
from argus.core.registry import build
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.evaluation.scenarios.world import to_samples
from argus.model.token_map import OBJECT
from argus.training.objectives.sft import SFT, SFTOptions
from argus.training.parts import set_trainable
from tests.model.connectors.mg import BOXES, drawing, inputs, picture, trained
from tests.model.tiny import chat


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


# -- training


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


# -- evaluation, files


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
