"""What an objective is: it turns drawn items into a batch, and a batch into a loss with named parts."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.world.domain import Domain, Drawing

Item = tuple[Drawing, Domain] | Sample
Batch = dict[str, Any]


class Objective(ABC):
    """Subclasses implement `collate` (in the data process) and `loss` (on the device).

    Attributes:
        progress: share of the stage's steps that are done, for what changes on the way; set before each step.
    """

    Options: ClassVar[type[Options]]
    needs_questions: ClassVar[bool] = True  # whether drawings must carry questions
    progress: float = 0.0

    def __init__(self, options: Any) -> None:
        self.options = options

    def bind(self, model: nn.Module, processor: Any) -> None:
        """Called once before training with the model and its processor or tokenizer."""
        self.processor = processor

    def techniques(self) -> dict[str, nn.Module]:
        """Parts of techniques that learn beside the model, by the techniques' names; called after `bind`."""
        return {}

    def compile(self, model: nn.Module) -> None:
        """torch.compile what this objective spends its time in; shapes may vary in the batch and sequence dimensions."""
        model.compile()

    @abstractmethod
    def collate(self, items: Sequence[Item]) -> Batch:
        """Items -> tensors."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and its parts by name (detached), e.g. {"clip": ..., "dense": ..., "accuracy": ...}."""


class _Gather(torch.autograd.Function):
    """Rows of all processes; backwards, each process gets the sum of what all of them want of its rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(distributed.get_world_size())]
        distributed.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(whole)
        return whole.chunk(distributed.get_world_size())[distributed.get_rank()]


def of_all(rows: Tensor) -> Tensor:
    """Rows (B, ...) of this process -> (P B, ...) of all processes that train together; gradients reach all."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def text_number(text: str) -> int:
    """The same 64 bits for the same text in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
