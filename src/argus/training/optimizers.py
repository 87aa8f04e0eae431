"""The optimisers of a stage: AdamW, or Muon for the matrices with AdamW for the rest.

Muon (Jordan et al. 2024; Muon is Scalable for LLM Training, arXiv 2502.16982) takes a momentum step in the direction of the
nearest orthogonal matrix, so that rare directions of a weight learn as fast as common ones:

    B <- mu B + G;   W <- (1 - lr wd) W - 0.2 sqrt(max(m, n)) lr NewtonSchulz(G + mu B)        W (m, n)

The factor gives its updates the root mean square of AdamW's (Moonlight, section 2.2), so a learning rate means the same for both.
It is meant for the weights of hidden linear layers; embeddings, the output head, convolutions, norms and biases stay with AdamW.
A small model that learns to look things up in a picture needs a third of AdamW's steps or fewer (`benchmarks/optimizers.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from argus.training.options import StageOptions
from argus.training.parts import parameter_groups

MOMENTUM = 0.95  # of both papers


class Together(torch.optim.Optimizer):
    """Several optimisers that step as one; their states stay their own."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([p for part in parts for group in part.param_groups for p in group["params"]], {})
        self._share()

    def _share(self) -> None:
        """The parts' own groups, so that a schedule which writes a rate into a group writes it where it is used."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("a step of several optimisers takes no closure")
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()


def matrices(model: nn.Module) -> set[Tensor]:
    """Weights of hidden linear layers: of all but the output head, and not where an embedding shares them."""
    tables = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    heads = {module.get_output_embeddings() for module in model.modules() if isinstance(module, PreTrainedModel)}
    linear = (module for module in model.modules() if isinstance(module, nn.Linear) and module not in heads)
    return {module.weight for module in linear if module.weight.ndim == 2} - tables


def optimizer(model: nn.Module, options: StageOptions) -> torch.optim.Optimizer:
    """The optimiser of a stage over what learns in `model`.

    Raises:
        RecipeError: `learning_rates` names a part that the model does not have.
    """
    groups: list[dict[str, Any]] = parameter_groups(model, options.learning_rate, options.learning_rates, options.weight_decay)
    hidden = matrices(model) if options.optimizer == "muon" else set()
    muon = _only(groups, lambda p: p in hidden)
    adamw = _only(groups, lambda p: p not in hidden)
    parts: list[torch.optim.Optimizer] = []
    if muon:
        parts.append(torch.optim.Muon(muon, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"))
    if adamw:
        parts.append(torch.optim.AdamW(adamw, betas=(0.9, options.beta2), fused=True))
    return parts[0] if len(parts) == 1 else Together(*parts)


def _only(groups: list[dict[str, Any]], keep: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
    """The groups with those of their parameters that `keep` names; without the ones of which nothing is left."""
    kept = [{**group, "params": [p for p in group["params"] if keep(p)]} for group in groups]
    return [group for group in kept if group["params"]]
