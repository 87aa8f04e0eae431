"""The linear map of AIM learns from answers behind virtual tokens, and nothing else learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart
from argus.training.data import StageData
from argus.training.objectives.aim_icl import documents
from argus.training.options import DataOptions
from argus.training.rows import IGNORE
from argus.training.stage import train_stage
from argus.world.data import conversation
from tests.model.tiny import tiny
from tests.training.test_stage import options

NOVEL = {"world": {"novel": 1.0}, "size": 32, "questions": 1}


def lesson(world: dict[str, Any] | None = None, count: int = 3, **given: Any) -> tuple[Any, Any, Any, list[Any], Any]:
    """A random model, its processor, the objective, items and their batch."""
    model, processor = tiny()
    model.requires_grad_(False)
    objective = build("objective", "aim_icl", given)
    objective.bind(model, processor)
    data = StageData(DataOptions.model_validate(world or NOVEL), 10)
    items = [data[i] for i in range(count)]
    return model, processor, objective, items, objective.collate(items)


def test_the_loss_is_that_of_answers_behind_virtual_tokens() -> None:
    """Against each document by itself: the technique attached, the mean over the tokens of the last answers."""
    model, processor, objective, items, batch = lesson()
    loss, _ = objective.loss(model, batch)
    losses = []
    for drawing, _ in items:
        sample = objective.cut(conversation(drawing))
        chat = sample.chat()
        texts = [
            processor.apply_chat_template(chat, tokenize=False),
            processor.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True),
        ]
        whole, start = (processor(images=sample.images(), text=text, return_tensors="pt") for text in texts)
        first = start["input_ids"].shape[1]
        with argus.attach(model, "aim_icl", projection="start"), torch.no_grad():
            logits = model(**whole, use_cache=False).logits[0, first - 1 : -1]
        losses.append(F.cross_entropy(logits, whole["input_ids"][0, first:], reduction="none"))
    torch.testing.assert_close(loss, torch.cat(losses).mean(), atol=1e-4, rtol=1e-4)


def test_only_the_linear_map_learns() -> None:
    model, _, objective, _, batch = lesson()
    loss, _ = objective.loss(model, batch)
    loss.backward()
    assert not any(p.grad is not None for p in model.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.reducer.parts.parameters())
    assert not model.model.language_model._forward_pre_hooks


def test_a_document_is_cut_behind_its_query() -> None:
    """j by lot, the same for the same document; with `shots` always as many; only the query's answer is learned."""
    _, _, objective, items, batch = lesson()
    drawings = [items[0][1].draw("train", index, 32, 1) for index in range(30)]
    counts = {len(objective.cut(conversation(drawing)).images()) for drawing in drawings}
    assert counts == {2, 3, 4, 5}
    assert objective.cut(conversation(items[0][0])).messages == objective.cut(conversation(items[0][0])).messages
    _, processor, fixed, items, batch = lesson(shots=4)
    assert all(len(fixed.cut(conversation(d)).images()) == 5 for d, _ in items)
    learned = [row[row != IGNORE].tolist() for row in batch["labels"]]
    said = [processor.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in learned]
    assert said == [d.questions[0].answer for d, _ in items]


def test_neighbouring_pictures_make_documents() -> None:
    """Seven drawings of one picture, three to a document; the one that is left over teaches nothing."""
    world = {"world": {"objects": 1.0}, "size": 32, "questions": 2}
    _, _, objective, items, batch = lesson(world, count=7, document=3, shots=2)
    made = documents([conversation(d) for d, _ in items], 3)
    assert [len(m.images()) for m in made] == [3, 3]
    assert [sum(isinstance(p, ImagePart) for m in d.messages for p in m.content) for d in map(objective.cut, made)] == [3, 3]
    assert len(batch["input_ids"]) == 2
    assert len(batch["pixel_values"]) == 6


def test_rows_hold_one_document() -> None:
    for wrong in ({"packing": 256}, {"turns": "independent"}):
        with pytest.raises(UnsupportedError, match="a row of its own"):
            lesson(**wrong)


def test_a_stage_trains_the_map_and_attaches_it(tmp_path: Path) -> None:
    model, processor = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage = options(
        objective={"aim_icl": {"technique": {"layer": 1}}}, data=NOVEL, train=["aim_icl"], steps=12, log_every=4,
        batch_size=4, learning_rate=0.01,
    )  # fmt: skip
    result = train_stage(model, processor, stage, tmp_path)
    assert set(result.trainable) == {"aim_icl"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert result.log[-1]["loss"] < result.log[0]["loss"]
    file = tmp_path / "techniques" / "aim_icl.safetensors"
    with argus.attach(model, "aim_icl", weights=str(file), layer=1) as attachment:
        assert not attachment.reducer.parts.weight.requires_grad
