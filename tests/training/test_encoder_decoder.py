"""Fine-tuning a composed model whose prompts an encoder reads: the loss is transformers', each answer has its row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.training.data import StageData
from argus.training.options import DataOptions
from argus.training.rows import IGNORE
from argus.training.turns import dialogue_ids
from argus.world.data import DEMONSTRATED
from tests.model.seq2seq import composed, seq2seq

OBJECTS = DataOptions(world={"objects": 1.0}, domains={"objects": {"max_objects": 2}}, size=32, questions=3)


def bound(folder: Path, kind: str = "t5", **options: Any) -> tuple[Any, Any, Any]:
    objective, made = build("objective", "sft", options), composed(folder, kind)
    objective.bind(*made)
    return objective, *made


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def dialogue() -> Sample:
    """Two turns about a picture, and a third that shows another."""
    asked = [[ImagePart(noise(0)), TextPart("red?")], [TextPart("star or circle?")], [ImagePart(noise(1)), TextPart("blue?")]]
    said = ["yes", "circle", "no"]
    turns = [m for a, s in zip(asked, said, strict=True) for m in (Message("user", a), Message("assistant", [TextPart(s)]))]
    return Sample("d", turns)


def by_transformers(kind: str, model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The loss row by row: prompt embeddings to the encoder, the answer as labels, pictures in the order of the rows."""
    plain, features, total, count = seq2seq(kind), None, torch.zeros(()), 0
    if "pixel_values" in batch:
        features = iter(model.get_image_features(batch["pixel_values"]))
    for ids, labels, sample in zip(batch["input_ids"], batch["labels"], batch["sample"], strict=True):
        end = int((labels != IGNORE).nonzero()[0])
        embeds = model.get_input_embeddings()(ids[:end]).clone()
        places = (ids[:end] == model.config.image_token_id).nonzero().flatten()
        for few in places.view(-1, 4):  # visual tokens of a picture
            embeds[few] = next(features).to(embeds)
        answer = labels[end:][sample[end:] >= 0]
        output = plain(inputs_embeds=embeds[None], labels=answer[None])
        total, count = total + output.loss * len(answer), count + len(answer)
    return total / count


@torch.no_grad()
@pytest.mark.parametrize("kind", ["t5", "flan_t5"])
@pytest.mark.parametrize("told", [0.0, 1.0], ids=["shown", "told"])
def test_the_loss_is_the_one_of_transformers(kind: str, told: float, tmp_path: Path) -> None:
    """Every question of a picture is a row: what stands before the answer is read by the encoder, the answer by the decoder."""
    objective, model, processor = bound(tmp_path, kind, told=told)
    batch = objective.collate([StageData(OBJECTS, 2)[index] for index in range(2)])
    assert len(batch["input_ids"]) == 6
    learned = batch["labels"] != IGNORE
    prompts = [processor.tokenizer.decode(row) for row in batch["input_ids"].masked_fill(learned, 0)]
    prompts = [text.replace("<pad>", "") for text in prompts]
    assert all(p.startswith("<s>User: ") and p.endswith("\nAssistant:</s>") for p in prompts)
    loss, parts = objective.loss(model, batch)
    torch.testing.assert_close(loss, by_transformers(kind, model, batch), rtol=1e-5, atol=1e-5)
    assert 0 <= float(parts["token_accuracy"]) <= 1


@torch.no_grad()
def test_a_dialogue_becomes_a_row_per_answer_behind_the_turns_before_it(tmp_path: Path) -> None:
    objective, model, processor = bound(tmp_path, turns="conversation")
    batch = objective.collate([dialogue()])
    learned = batch["labels"] != IGNORE
    said = [processor.tokenizer.decode(row[mask]) for row, mask in zip(batch["labels"], learned, strict=True)]
    assert said == [" yes</s>\n", " circle</s>\n", " no</s>\n"]
    read = [
        processor.tokenizer.decode(row[: int(mask.int().argmax())]) for row, mask in zip(batch["input_ids"], learned, strict=True)
    ]
    assert [text.count("Assistant:") for text in read] == [1, 2, 3]
    assert "Assistant:</s> yes</s>\nUser: star" in read[1]
    assert len(batch["pixel_values"]) == 1 + 1 + 2
    torch.testing.assert_close(objective.loss(model, batch)[0], by_transformers("t5", model, batch), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_batch_of_the_processor_has_the_same_loss(tmp_path: Path) -> None:
    """As other trainers feed it: labels from the template, padded in front, one answer in each row."""
    objective, model, processor = bound(tmp_path)
    samples = [replace(dialogue(), messages=dialogue().messages[:2]), replace(dialogue(), messages=dialogue().messages[4:])]
    batch = processor.encode(samples)
    each = [model(**processor.encode([one])).loss * n for one, n in zip(samples, (batch["labels"] != IGNORE).sum(1), strict=True)]
    torch.testing.assert_close(model(**batch).loss, sum(each) / (batch["labels"] != IGNORE).sum())
    rows = objective.collate(samples)
    newline = (rows["labels"] == processor.tokenizer("\n").input_ids[0]) & (rows["labels"] != IGNORE)
    rows["labels"] = rows["labels"].masked_fill(newline, IGNORE)  # the template does not call it the model's
    torch.testing.assert_close(model(**batch).loss, objective.loss(model, rows)[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match="a row holds a prompt and one answer"):
        model(**processor.encode([dialogue()]))


def test_demonstrations_are_read_and_not_learned(tmp_path: Path) -> None:
    objective, _, processor = bound(tmp_path, turns="conversation")
    batch = objective.collate([replace(dialogue(), metadata={DEMONSTRATED: True})])
    assert [processor.tokenizer.decode(row[row != IGNORE]) for row in batch["labels"]] == [" no</s>\n"]


def test_dialogues_are_cut_before_they_become_rows(tmp_path: Path) -> None:
    _, _, processor = bound(tmp_path, turns="conversation")
    length = len(dialogue_ids(processor, dialogue().messages[:4], [(16, 16)])[0])
    cutting, *_ = bound(tmp_path, turns="conversation", max_tokens=length)
    batch = cutting.collate([dialogue()])
    assert [processor.tokenizer.decode(row[row != IGNORE]) for row in batch["labels"]] == [" yes</s>\n", " circle</s>\n"]


def test_a_frozen_language_model_teaches_the_connector(tmp_path: Path) -> None:
    """Stage 2 of BLIP-2: steps on a batch lower its loss by the connector alone, through decoder and encoder in bf16."""
    objective, model, _ = bound(tmp_path)
    batch = objective.collate([StageData(OBJECTS, 2)[index] for index in range(2)])
    model.requires_grad_(False)
    connector = model.model.multi_modal_projector.requires_grad_(True)
    optimizer = torch.optim.Adam(connector.parameters(), lr=2e-2)
    losses = []
    for _ in range(16):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = objective.loss(model, batch)
        losses.append(float(loss.detach()))
        loss.backward()
        assert all(float(p.grad.abs().max()) > 0 for p in connector.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.05
    assert all(p.grad is None for p in model.model.language_model.parameters())


def test_what_was_learned_is_what_is_said(tmp_path: Path) -> None:
    """Four answers that only the pictures and the questions together tell are learned by heart, then generated and chosen."""
    objective, model, processor = bound(tmp_path)
    asked = [(seed, text) for seed in (0, 1) for text in ("star?", "How many?")]
    answers = ["red", "2", "blue", "3"]
    samples = [
        Sample(
            f"{seed}{text}", [Message("user", [ImagePart(noise(seed)), TextPart(text)]), Message("assistant", [TextPart(said)])]
        )
        for (seed, text), said in zip(asked, answers, strict=True)
    ]
    batch = objective.collate(samples)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        objective.loss(model, batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    questions = [
        Question(s.id, replace(s, messages=s.messages[:1], options=answers), [noise(seed)])
        for s, (seed, _) in zip(samples, asked, strict=True)
    ]
    local = LocalModel(model, processor)
    assert [answer.text for answer in local.generate(questions, 4)] == answers
    assert [int(np.argmax(scores)) for scores in local.score(questions, False)] == [0, 1, 2, 3]


def test_packed_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="questions cannot be packed"):
        bound(tmp_path, packing=256)
