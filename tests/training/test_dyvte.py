"""Exit routers learn from what leaving after a layer does to the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.anatomy import anatomy
from argus.training.data import StageData
from argus.training.objectives.dyvte import exit_label
from argus.training.options import DataOptions
from argus.training.stage import train_stage
from tests.model.tiny import tiny
from tests.training.test_stage import DATA, options

OPTIONS = {"ratio": 1.03, "technique": {"hidden": 16}}


def lesson(packing: int = 0, **changes: Any) -> tuple[Any, Any, Any, Any, list[Any]]:
    """A random model, its processor, the objective, a batch and what it was made of."""
    model, processor = tiny()
    objective = build("objective", "dyvte", {**OPTIONS, "packing": packing, **changes})
    objective.bind(model, processor)
    data = StageData(DataOptions.model_validate(DATA), 10)
    items = [data[i] for i in range(3)]
    return model, processor, objective, objective.collate(items), items


def alone(processor: Any, items: list[Any]) -> list[tuple[dict[str, Tensor], int]]:
    """Each question with its answer as one prompt, and where the answer starts."""
    out = []
    for drawing, _ in items:
        for question in drawing.questions:
            messages = [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]},
                {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
            ]
            texts = (
                processor.apply_chat_template(messages, tokenize=False),
                processor.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True),
            )
            whole, start = (processor(images=[drawing.pixels], text=text, return_tensors="pt") for text in texts)
            out.append((whole, start["input_ids"].shape[1]))
    return out


def test_labels_by_hand() -> None:
    """Losses .500 and .510: ratio 1.02, may exit. .500 and .520: may not. Two of three tokens agree: may not."""
    agree, full, without = (torch.tensor(v) for v in ([1.0, 1.0, 2 / 3], [0.5, 0.5, 0.5], [0.51, 0.52, 0.51]))
    assert exit_label(agree, full, without).tolist() == [True, False, False]


@pytest.mark.parametrize("packing", [0, 256])
def test_labels_and_features_are_those_of_two_passes_alone(packing: int) -> None:
    """Against each question by itself: one pass of the base model, one with the picture dropped, the states of its text."""
    model, processor, objective, batch, items = lesson(packing)
    features, may = objective.lesson(model, batch, 0)
    expected = []
    for whole, start in alone(processor, items):
        labels = whole["input_ids"][0, start:]
        with torch.no_grad():
            base = model(**whole, output_hidden_states=True)
            with argus.attach(model, "dyvte", policy="fixed", layer=0):
                without = model(**whole, use_cache=False).logits[0, start - 1 : -1]
        full = base.logits[0, start - 1 : -1]
        agree = (full.argmax(-1) == without.argmax(-1)).float().mean()
        losses = [F.cross_entropy(logits, labels) for logits in (full, without)]
        visual = anatomy(model).visual_mask(whole["input_ids"])[0]
        text = [c for c in range(int(visual.nonzero()[0]), start - 1) if not visual[c]]
        states = base.hidden_states[1][0]
        expected.append(
            (torch.cat([states[text].mean(0), states[start - 1]]), bool(agree > 0.99 and losses[1] < 1.03 * losses[0]))
        )
    assert len({label for _, label in expected}) == 2  # both kinds occur
    # Packed rows hold the questions in another order.
    order = [int((features - f).abs().sum(1).argmin()) for f, _ in expected]
    assert sorted(order) == list(range(len(expected)))
    torch.testing.assert_close(features[order], torch.stack([f for f, _ in expected]), atol=1e-4, rtol=1e-4)
    assert may[order].tolist() == [label for _, label in expected]


def test_only_the_router_of_the_layer_learns() -> None:
    model, _, objective, batch, _ = lesson()
    loss, parts = objective.loss(model, batch)
    loss.backward()
    assert not any(p.grad is not None for p in model.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.reducer.parts[0].parameters())
    assert set(parts) == {"exit_share", "wrong_exits", "missed_exits"}
    features, may = objective.lesson(model, batch, 0)
    logits = objective.reducer.parts[0](features)
    torch.testing.assert_close(loss, F.cross_entropy(logits, may.long()))
    assert len(model.model.language_model.layers[1]._forward_pre_hooks) == 0


def test_questions_without_pictures_teach_nothing() -> None:
    model, _, objective, batch, _ = lesson(pictures=False)
    loss, _ = objective.loss(model, batch)
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_dialogues_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="independent questions"):
        lesson(turns="conversation")


def test_a_stage_trains_routers_and_attaches_them(tmp_path: Path) -> None:
    """Weights of the model stay, the loss falls, and the file is what attach takes."""
    model, processor = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stage = options(objective={"dyvte": OPTIONS}, train=["dyvte"], steps=16, log_every=4, learning_rate=0.003)
    result = train_stage(model, processor, stage, tmp_path)
    assert set(result.trainable) == {"dyvte"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert result.log[-1]["loss"] < result.log[0]["loss"]
    file = tmp_path / "techniques" / "dyvte.safetensors"
    with argus.attach(model, "dyvte", weights=str(file), hidden=16) as attachment, torch.no_grad():
        model(**alone(processor, [StageData(DataOptions.model_validate(DATA), 10)[0]])[0][0])
    assert [count.layer for count in attachment.counts] == [1]
