"""Dynamic-LLaVA's predictors learn beside the model, under a policy that equals what attaching them computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.methods.attach import Attachment
from argus.training.data import StageData
from argus.training.objectives.dynamic_llava import DynamicLlavaTraining, Sparse, answer_numbers, means
from argus.training.options import DataOptions
from argus.training.rows import IGNORE
from argus.training.stage import train_stage
from tests.model.tiny import tiny
from tests.training.test_stage import DATA, options

TECHNIQUE = {"layer": 1, "width": 16, "heads": 2, "blocks": 1, "keep": 0.25}
CAPTIONS = {**DATA, "questions": 2, "families": ["caption", "colour"], "domains": {"objects": {"max_objects": 3}}}


class Ranked(nn.Module):
    """Keeps 4 of the 16 tokens of each picture for sure: those whose first state is greatest."""

    def forward(self, x: Tensor, prev: Tensor) -> Tensor:
        rank = x[..., 0].argsort(dim=1, descending=True).argsort(dim=1)
        return torch.stack([(3.5 - rank) * 100, torch.zeros_like(x[..., 0])], dim=-1)


class Signs(nn.Module):
    """Keeps tokens for sure whose first state is positive."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[..., 0].sign() * 100, torch.zeros_like(x[..., 0])], dim=-1)


class Sure(nn.Module):
    """Predictors whose draw is no matter of chance."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = Ranked(), Signs()


def lesson(sure: bool = False, pictures: int = 2, **changes: Any) -> tuple[Any, Any, DynamicLlavaTraining, Any, list[Any]]:
    """A random model, its processor, the objective, a batch and what it was made of."""
    model, processor = tiny()
    objective = build("objective", "dynamic_llava", {"technique": TECHNIQUE, "min_answer": 1, "eps": 0.0, **changes})
    objective.bind(model, processor)
    if sure:
        objective.reducer.parts = Sure()
    data = StageData(DataOptions.model_validate(CAPTIONS), 10)
    items = [data[i] for i in range(pictures)]
    return model, processor, objective, objective.collate(items), items


@torch.no_grad()
def taught(model: Any, objective: DynamicLlavaTraining, batch: Any) -> Tensor:
    """(n, V) logits that predict the answers' tokens in training, in the rows' order."""
    seen: list[Tensor] = []
    hook = model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output))
    objective.loss(model, batch)
    hook.remove()
    return seen[0]


@torch.no_grad()
def asked(model: Any, processor: Any, items: list[Any], **cache: Any) -> Tensor:
    """The same logits, each question by itself and its answer fed token by token."""
    out = []
    for drawing, _ in items:
        for question in drawing.questions:
            messages = [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]},
                {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
            ]
            whole, prompt = (
                processor(images=[drawing.pixels], text=text, return_tensors="pt")
                for text in (
                    processor.apply_chat_template(messages, tokenize=False),
                    processor.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True),
                )
            )
            ids, start = whole["input_ids"], prompt["input_ids"].shape[1]
            output = model(**prompt, use_cache=True)
            out.append(output.logits[0, -1])
            for column in range(start, ids.shape[1] - 1):
                output = model(
                    input_ids=ids[:, column : column + 1],
                    attention_mask=torch.ones(1, column + 1).long(),
                    past_key_values=output.past_key_values,
                )
                out.append(output.logits[0, -1])
    return torch.stack(out)


@pytest.mark.parametrize("packing", [0, 512])
def test_training_under_a_hard_policy_equals_dropping(packing: int) -> None:
    """Visual and generated tokens that the policy hides are those that attaching drops and forgets; what goes on computes the
    same, for many independent turns in a row as for one question at a time."""
    model, processor, objective, batch, items = lesson(sure=True, packing=packing)
    learned = taught(model, objective, batch)
    items = [items[i] for i in dict.fromkeys(batch["sample"][batch["sample"] >= 0].tolist())]  # as the rows hold them
    bare = asked(model, processor, items)
    with Attachment(model, "dynamic_llava", objective.reducer) as attachment:
        attached = asked(model, processor, items)
        assert attachment.counts[0].kept == 4
    assert (attached - bare).abs().max() > 0.1
    torch.testing.assert_close(learned, attached, atol=1e-4, rtol=1e-4)


def test_a_policy_of_ones_is_plain_training() -> None:
    """No-op: everything kept and no weight on the shares is supervised fine-tuning."""
    model, processor, objective, batch, _ = lesson(ratio_weight=0.0, min_answer=1000)
    batch.pop("pixel_values")
    batch["input_ids"][batch["input_ids"] == 3] = 5
    plain = build("objective", "sft", {})
    plain.bind(model, processor)
    torch.testing.assert_close(objective.loss(model, batch)[0], plain.loss(model, batch)[0], atol=1e-5, rtol=1e-5)


def test_the_leak_is_small() -> None:
    logits = []
    for eps in (0.0, 1e-6, 1e-3):
        model, _, objective, batch, _ = lesson(sure=True, eps=eps)
        logits.append(taught(model, objective, batch))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=0)
    assert (logits[2] - logits[0]).abs().max() > 1e-5


def drawn(model: Any, objective: DynamicLlavaTraining, batch: Any) -> tuple[Tensor, dict[str, Tensor], Sparse]:
    """What the loss is, and the policy that was drawn for it."""
    seen: list[Sparse] = []
    plain = objective.draw
    objective.draw = lambda sparse, *rest: (seen.append(sparse), plain(sparse, *rest))[1]  # type: ignore[method-assign]
    loss, parts = objective.loss(model, batch)
    return loss, parts, seen[0]


def test_shares_and_their_loss() -> None:
    """4 of 16 visual tokens are exactly the quarter that is asked for; answers' shares are off 0.5 by what they are."""
    model, _, objective, batch, _ = lesson(sure=True)
    loss, parts, sparse = drawn(model, objective, batch)
    assert sparse.policy is not None
    assert sparse.shares["visual"].tolist() == [0.25, 0.25]
    answer = answer_numbers(batch["labels"], batch["sample"], batch["turn"])
    assert len(sparse.shares["text"]) == 4  # 2 pictures, 2 questions each
    for number, share in enumerate(sparse.shares["text"].tolist()):
        assert share == pytest.approx(float(sparse.policy[answer == number].mean()))
    rest = (answer < 0) & (batch["input_ids"] != 3)
    assert bool((sparse.policy[rest] == 1).all())
    gap = (sparse.shares["text"] - 0.5).square().mean()
    torch.testing.assert_close(loss, parts["answer"] + 100 * gap)
    assert float(parts["kept_visual"]) == 0.25


def test_short_answers_keep_everything() -> None:
    """Colours are a word, captions many: only these lose tokens."""
    model, _, objective, batch, _ = lesson(sure=True, min_answer=8)
    _, _, sparse = drawn(model, objective, batch)
    answer = answer_numbers(batch["labels"], batch["sample"], batch["turn"])
    sizes = torch.bincount(answer[answer >= 0])
    short = (answer >= 0) & (sizes < 8)[answer]
    assert sparse.policy is not None
    assert bool(short.any())
    assert bool((sparse.policy[short] == 1).all())
    assert len(sparse.shares["text"]) == int((sizes >= 8).sum()) > 0


def test_answers_by_hand() -> None:
    """A run of learned tokens is an answer; another turn or another sample begins a new one."""
    labels = torch.tensor([[IGNORE, 5, 6, IGNORE, 7, 8, 8], [IGNORE, 9, 9, 9, IGNORE, IGNORE, 4]])
    sample = torch.tensor([[0, 0, 0, 0, 0, 0, 1], [2, 2, 2, 2, 2, -1, -1]])
    turn = torch.tensor([[0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 2, 2, 0, 0]])
    expected = [[-1, 0, 0, -1, 1, 1, 2], [-1, 3, 3, 4, -1, -1, 5]]
    assert answer_numbers(labels, sample, turn).tolist() == expected
    assert means(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1])).tolist() == [0.5, 1.0]


def test_gradients_pass_the_policy_softmax() -> None:
    """Without the loss on shares, answers alone teach both predictors, through hard decisions."""
    torch.manual_seed(0)
    model, _, objective, batch, _ = lesson(ratio_weight=0.0)
    objective.loss(model, batch)[0].backward()
    parts = objective.reducer.parts
    assert parts is not None
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in parts.parameters())
    assert float(model.model.language_model.layers[0].mlp.up_proj.weight.grad.abs().sum()) > 0
    assert not model.model.language_model.layers[1]._forward_pre_hooks  # nothing is left on the model


def test_ratio_loss_reaches_its_targets() -> None:
    """In less than 300 steps the shares kept are within 0.03 of what is asked for."""
    torch.manual_seed(0)
    _, _, objective, batch, _ = lesson(pictures=8, min_answer=8)
    hidden = torch.randn(*batch["input_ids"].shape, 48)  # in the place of what enters layer l
    parts = objective.reducer.parts
    assert parts is not None
    optimizer = torch.optim.Adam(parts.parameters(), lr=0.01)
    kept: list[tuple[float, float]] = []
    for step in range(150):
        objective.progress, sparse = step / 150, Sparse()
        objective.draw(sparse, hidden, batch)
        optimizer.zero_grad()
        objective.gap(sparse).backward()
        optimizer.step()
        kept.append((float(sparse.shares["visual"].mean()), float(sparse.shares["text"].mean())))
    visual, text = torch.tensor(kept[-50:]).mean(0).tolist()
    assert visual == pytest.approx(0.25, abs=0.03)
    assert text == pytest.approx(0.5, abs=0.03)


def test_a_stage_cools_and_its_parts_attach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tau falls geometrically from 1.0 to 0.1 over the steps; a run that stopped goes on where it was."""
    taus: list[float] = []
    plain = DynamicLlavaTraining.tau
    monkeypatch.setattr(DynamicLlavaTraining, "tau", lambda self: taus.append(plain(self)) or plain(self))
    stage = options(
        objective={"dynamic_llava": {"technique": TECHNIQUE, "min_answer": 8}},
        steps=4,
        batch_size=2,
        data=CAPTIONS,
        learning_rates={"dynamic_llava": 0.01},
    )

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    model, processor = tiny()
    with pytest.raises(KeyboardInterrupt):
        train_stage(model, processor, stage, tmp_path, on_step=stop)
    model, processor = tiny()
    result = train_stage(model, processor, stage, tmp_path)
    assert {round(t, 3) for t in taus} == {1.0, 0.562, 0.316, 0.178}
    assert taus[-1] == pytest.approx(0.1**0.75)
    assert "dynamic_llava" in result.trainable
    file = tmp_path / "techniques" / "dynamic_llava.safetensors"
    batch = lesson()[3]
    with argus.attach(model, "dynamic_llava", weights=str(file), **TECHNIQUE) as attachment, torch.no_grad():
        model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"])
    assert {count.kept for count in attachment.counts} == {4}


def test_refusals() -> None:
    model, processor = tiny()
    with pytest.raises(UnsupportedError, match="layer 2 of only 2 layers"):
        build("objective", "dynamic_llava", {}).bind(model, processor)
    model, _, objective, batch, _ = lesson()
    model.gradient_checkpointing_enable()
    with pytest.raises(UnsupportedError, match="when their policy is gone"):
        objective.loss(model, batch)
