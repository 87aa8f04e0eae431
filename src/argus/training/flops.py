"""Model FLOPs of a training step, counted from the real forward pass, and the rate this machine can reach."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from argus.training.objectives.base import Objective


def training_flops(model: nn.Module, objective: Objective, batch: dict[str, Any]) -> float:
    """FLOPs of one forward and backward pass over `batch`.

    The forward pass is counted from its actual shapes. The backward pass costs twice that where every weight learns; the
    weight-gradient half is charged only for the share of parameters that do (PaLM, arXiv 2204.02311, appendix B).
    """
    device = next(model.parameters()).device
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        objective.loss(model, moved)
    model.train(training)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = learning / sum(p.numel() for p in model.parameters())
    return counter.get_total_flops() * (2 + share if share < 1 else 3)


@cache
def machine_peak(precision: str, side: int = 1024, seconds: float = 0.15) -> float:
    """FLOP/s of a square matrix product here, the yardstick of MFU: measured, because a CPU has no data sheet."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = side * 8 if device == "cuda" else side
    a = torch.randn(side, side, device=device, dtype=dtype)
    a @ a
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        count += 1
    return 2 * side**3 * count / (time.perf_counter() - start)
