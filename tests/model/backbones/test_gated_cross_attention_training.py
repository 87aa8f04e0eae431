"""NVLM's cross-attention learns: rows of many questions, the parts of each stage, gates, checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.training.parts import set_trainable
from tests.model.backbones.nvlm import made
from tests.model.several import PICTURES, encode, mixed


def sample(shown: int, asked: list[str]) -> Sample:
    first = [ImagePart(PICTURES[shown])]
    messages = []
    for number, text in enumerate(asked):
        messages += [Message("user", [*(first if number == 0 else []), TextPart(text)]), Message("assistant", [TextPart("yes")])]
    return Sample(f"{shown}-{len(asked)}", messages)


@pytest.mark.parametrize("packing", [0, 400])
def test_turns_and_samples_of_a_row_stay_apart(both: tuple[Any, Any], packing: int) -> None:
    """The loss of many questions about several pictures is that of each asked alone."""
    model, processor = both
    objective = build("objective", "sft", {"packing": packing})
    objective.bind(model, processor)
    asked = {0: ["red", "How many?"], 2: ["What colour is the star?", "blue", "no"], 1: ["green"]}
    batch = objective.collate([sample(shown, texts) for shown, texts in asked.items()])
    if packing:
        assert len(batch["input_ids"]) == 1
    with torch.no_grad():
        loss, _ = objective.loss(model, batch)
        alone = [objective.loss(model, objective.collate([sample(s, [t])]))[0] for s, texts in asked.items() for t in texts]
    torch.testing.assert_close(loss, torch.stack(alone).mean(), rtol=1e-4, atol=1e-4)


def test_parts_learn_as_stages_say(both: tuple[Any, Any]) -> None:
    """Stage 1: connector and cross-attention; stage 2: with the language model; never the encoder."""
    model, processor = both
    objective = build("objective", "sft", {})
    objective.bind(model, processor)
    batch = objective.collate([sample(0, ["red"]), sample(2, ["How many?"])])
    for train in (["multi_modal_projector", "cross_attention"], ["multi_modal_projector", "cross_attention", "language_model"]):
        counts = set_trainable(model, train, [])
        assert set(counts) == set(train)
        model.zero_grad()
        objective.loss(model, batch)[0].backward()
        for name, parameter in model.named_parameters():
            learns = any(part in name for part in train) and "lm_head" not in name
            assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == learns, name


def test_text_only_perplexity_stays_while_the_language_model_is_frozen(both: tuple[Any, Any]) -> None:
    """To the last bit after steps on pictures; once the language model learns too, it is another one."""
    model, processor = both
    objective = build("objective", "sft", {})
    objective.bind(model, processor)
    batch = objective.collate([sample(0, ["red"]), sample(2, ["How many?"])])
    texts = encode(processor, ["red green blue", "What colour is the star?"], [[], []])

    def perplexity() -> float:
        with torch.no_grad():
            labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)
            return float(model(**texts, labels=labels).loss.exp())

    def learn(train: list[str]) -> None:
        set_trainable(model, train, [])
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            optimiser.zero_grad()
            objective.loss(model, batch)[0].backward()
            optimiser.step()

    before = perplexity()
    learn(["multi_modal_projector", "cross_attention"])
    assert perplexity() == before
    learn(["language_model"])
    assert perplexity() != before


def test_gates_open_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0 the gates have a gradient, and what is behind them has none yet."""
    model, processor = made("cross", monkeypatch, gate=0.0)
    inputs = mixed(processor)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    layer = model.model.cross_attention.layers[0]
    assert layer.cross_attn_attn_gate.grad.abs() > 0
    assert layer.cross_attn_mlp_gate.grad.abs() > 0
    assert not layer.cross_attn.v_proj.weight.grad.any()


def test_checkpointing_gives_the_same_gradients(both: tuple[Any, Any]) -> None:
    """Two passes before one backward: each is computed again with what it saw."""
    model, processor = both
    batches, gradients = [encode(processor, ["red"], [PICTURES[:1]]), encode(processor, ["blue", "no"], [PICTURES[2:], []])], []
    for checkpoints in (False, True):
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        model.zero_grad()
        sum(model(**b, labels=b["input_ids"], use_cache=False).loss for b in batches).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)
