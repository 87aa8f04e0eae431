"""Thresholds learn with the answers, towards a number of visual tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.methods.attach import Attachment
from argus.training.data import StageData
from argus.training.objectives.atp_llava import budget
from argus.training.options import DataOptions
from argus.training.rows import IGNORE
from argus.training.stage import train_stage
from tests.model.tiny import tiny
from tests.training.test_stage import DATA, options

ONE = {**DATA, "questions": 1}
TECHNIQUE = {"layers": (1,), "pool": 4, "hidden": 8}


def lesson(data: dict[str, Any] = ONE, technique: dict[str, Any] | None = None, **changes: Any) -> tuple[Any, Any, Any, Any, Any]:
    """A random model, its processor, the objective, a batch and what it was made of."""
    model, processor = tiny()
    objective = build("objective", "atp_llava", {"technique": {**TECHNIQUE, **(technique or {})}, **changes})
    objective.bind(model, processor)
    stream = StageData(DataOptions.model_validate(data), 10)
    items = [stream[i] for i in range(4)]
    return model, processor, objective, objective.collate(items), items


def test_budget_by_hand() -> None:
    """288, 144, 72 of 576 at layers 4, 14, 24: .5 x 4 + .25 x 14 + .125 x 24 = 8.5; mean 168 is 24 from 144."""
    kept = {layer: torch.tensor([count]) for layer, count in ((4, 288.0), (14, 144.0), (24, 72.0))}
    deep, target = budget(kept, torch.tensor([576.0]), 0.25)
    assert (float(deep), float(target)) == (8.5, 24.0)
    uneven = {4: torch.tensor([100.0, 188.0])}  # the budget is the batch's: one question may take more than another
    assert float(budget(uneven, torch.tensor([576.0, 576.0]), 0.25)[1]) == 0.0


def test_the_loss_is_the_sum_of_its_parts_and_reaches_everything() -> None:
    model, _, objective, batch, _ = lesson()
    objective.reducer.parts[0].redundancy.bias.data.fill_(0.0)  # some tokens are nearer to this threshold, some to the other
    loss, parts = objective.loss(model, batch)
    loss.backward()
    count, total = objective.reducer.counts[1], objective.reducer.total
    deep, target = budget({1: count}, total, 0.25)
    assert total.tolist() == [16.0] * 4
    torch.testing.assert_close(parts["over_target"], target)
    torch.testing.assert_close(parts["kept_share"], count.mean() / 16)
    plain = build("objective", "sft")
    plain.bind(model, objective.processor)
    answers = (loss - 0.05 * deep - 0.2 * target).detach()
    assert float(answers) != pytest.approx(float(plain.loss(model, batch)[0].detach()), abs=1e-6)
    learned = dict(objective.reducer.parts[0].named_parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned.values()), learned
    assert model.model.language_model.layers[0].mlp.down_proj.weight.grad.abs().sum() > 0
    assert not hasattr(model.model, "_argus_layer_plan")


def test_open_gates_leave_the_answers_loss() -> None:
    """Without the budget, and with thresholds near zero, the loss is that of plain fine-tuning."""
    model, processor, objective, batch, _ = lesson(depth_weight=0.0, target_weight=0.0, technique={"temperature": 1e4})
    objective.reducer.parts[0].redundancy.bias.data.fill_(-30.0)
    plain = build("objective", "sft")
    plain.bind(model, processor)
    with torch.no_grad():
        torch.testing.assert_close(objective.loss(model, batch)[0], plain.loss(model, batch)[0], atol=1e-5, rtol=1e-4)


def test_rows_give_the_thresholds_of_the_prompt_alone() -> None:
    """Neither padding nor answers are read: a sharp soft mask passes what the attached technique keeps of the prompt."""
    model, processor, objective, batch, items = lesson(technique={"temperature": 1e5})
    with torch.no_grad():
        objective.reducer.parts[0].redundancy.weight.mul_(5)
        objective.reducer.parts[0].redundancy.bias.fill_(-0.8)
        objective.loss(model, batch)
        counts = objective.reducer.counts[1].tolist()
        answers = batch["labels"] != IGNORE
        objective.loss(model, {**batch, "input_ids": batch["input_ids"].masked_fill(answers, 7)})
        assert objective.reducer.counts[1].tolist() == counts
        objective.reducer.parts.eval()
        for (drawing, _), count in zip(items, counts, strict=True):
            asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": drawing.questions[0].text}]}]
            text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            with Attachment(model, "atp_llava", objective.reducer) as attachment:
                model(**processor(images=[drawing.pixels], text=text, return_tensors="pt"))
            assert attachment.counts[0].kept == pytest.approx(count, abs=0.01)
    assert 1 < min(counts) < 16


def test_rows_of_several_questions_are_refused() -> None:
    model, _, objective, batch, _ = lesson(DATA)
    with pytest.raises(UnsupportedError, match=r"data.questions to 1"):
        objective.loss(model, batch)
    with pytest.raises(UnsupportedError, match="packed row"):
        lesson(packing=256)


def test_rows_without_pictures_are_plain() -> None:
    model, processor, objective, batch, _ = lesson(pictures=False)
    plain = build("objective", "sft")
    plain.bind(model, processor)
    loss, parts = objective.loss(model, batch)
    torch.testing.assert_close(loss, plain.loss(model, batch)[0])
    assert "kept_share" not in parts


def test_a_stage_reaches_the_number_and_attaches(tmp_path: Path) -> None:
    """A quarter of 16 tokens, within 5 %; the model learns beside, and the file is what attach takes."""
    model, processor = tiny()
    stage = options(
        objective={"atp_llava": {"technique": TECHNIQUE}},
        data=ONE,
        steps=80,
        batch_size=8,
        log_every=20,
        learning_rate=1e-4,
        learning_rates={"atp_llava": 0.01},
        schedule="linear",
        max_grad_norm=100.0,
        precision="fp32",
        save_every=80,
    )
    result = train_stage(model, processor, stage, tmp_path)
    assert "atp_llava" in result.trainable
    assert "language_model" in result.trainable
    assert result.log[-1]["kept_share"] == pytest.approx(0.25, rel=0.05)
    file = tmp_path / "techniques" / "atp_llava.safetensors"
    drawing, _ = StageData(DataOptions.model_validate(ONE), 1000)[900]
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": drawing.questions[0].text}]}]
    text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    with argus.attach(model, "atp_llava", weights=str(file), **TECHNIQUE) as attachment, torch.no_grad():
        model(**processor(images=[drawing.pixels], text=text, return_tensors="pt"))
    assert 1 <= attachment.counts[0].kept < 16
