"""One of two processes that compute a batch together, as DDP has them do it."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


def join(rank: int, folder: str) -> None:
    """Meet the other process."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def leave(rank: int, folder: str, model: nn.Module, loss: Tensor, retrieval: Tensor) -> None:
    """Write the means of both processes, of loss, gradients and retrieval, to `<folder>/<rank>.pt`."""
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found.update(loss=loss.detach(), retrieval=retrieval)
    for value in found.values():
        distributed.all_reduce(value)
        value /= 2
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
