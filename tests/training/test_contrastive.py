"""The contrastive loss does not depend on the order of the pairs, nor on how many processes share a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from argus.core.registry import build
from argus.training.data import StageData
from argus.training.options import DataOptions
from tests.training.test_stage import DATA, dual
from tests.training.two_processes import join, leave


def lesson() -> tuple[Any, Any, Any]:
    """A model, the objective, and the data it learns from."""
    model, words = dual()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    objective = build("objective", "contrastive", {"dense": 0.0})
    objective.bind(model, words)
    return model.eval(), objective, StageData(DataOptions.model_validate(DATA), 100, questions=False)


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [1, 0, 2, 3]])
def test_pairs_in_another_order_have_the_same_loss(order: list[int]) -> None:
    model, objective, data = lesson()
    items = [data[i] for i in range(4)]
    loss, _ = objective.loss(model, objective.collate(items))
    mixed, _ = objective.loss(model, objective.collate([items[i] for i in order]))
    torch.testing.assert_close(mixed, loss)


def share(rank: int, folder: str) -> None:
    """What one of two processes computes of a batch of eight: loss and gradients, averaged as DDP does."""
    join(rank, folder)
    model, objective, data = lesson()
    loss, parts = objective.loss(model, objective.collate([data[i] for i in range(4 * rank, 4 * rank + 4)]))
    leave(rank, folder, model, loss, parts["retrieval"])


def test_two_processes_compare_their_pairs_with_those_of_both(tmp_path: Path) -> None:
    model, objective, data = lesson()
    loss, parts = objective.loss(model, objective.collate([data[i] for i in range(8)]))
    loss.backward()
    multiprocessing.spawn(share, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found.pop("loss"), loss.detach())
        torch.testing.assert_close(found.pop("retrieval"), parts["retrieval"])
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, model.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_similarities_are_those_of_float32_under_bf16() -> None:
    model, objective, data = lesson()
    batch = objective.collate([data[i] for i in range(4)])
    output = model(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
    with torch.autocast("cpu", torch.bfloat16):
        found = model.similarity(output)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model.similarity(output), rtol=0, atol=0)
