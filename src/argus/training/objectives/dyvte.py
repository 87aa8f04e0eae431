"""Trains the exit routers of DyVTE (arXiv 2411.19628) in a frozen model: could the picture have left after layer e?

Each step draws one layer e, the same for the batch. Behind it the batch runs twice, once as it is and once with the visual keys
unseen, which gives the text exactly what dropping the visual tokens would. A question may exit (y = 1) if that changes nothing:

    y = [argmax agrees on more than 99 % of the answer tokens]  and  [CE(without) < 1.03 CE(with)]
    L = cross_entropy(router_e(f), y)

f are the states of the question's text after layer e (`argus.methods.reduction.dyvte`), without gradient: only routers learn.
Limits and loss are those of the published code; it draws e from all layers, here the last is left out, where y is always 1. A
picture's questions share a row, and each has its own f and y, as if asked alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.methods.reduction.dyvte import exit_features
from argus.model.anatomy.base import Anatomy
from argus.training.objectives.base import Batch
from argus.training.objectives.technique import TechniqueObjective, TechniqueOptions
from argus.training.rows import supervised


class ExitOptions(TechniqueOptions):
    """When a picture may leave."""

    agreement: float = Field(0.99, ge=0, lt=1, description="share of the answer's tokens above which predictions have to agree")
    ratio: float = Field(1.03, gt=0, description="answer cross-entropy without over with the picture that has to be undercut")


@dataclass(frozen=True, slots=True)
class Turns:
    """The K questions with pictures in a batch of rows.

    Args:
        rows: (K,) row of each.
        text: (K, S) bool, its text behind the first picture without the last prompt token.
        last: (K,) position of the last prompt token.
        place: (n,) question of each answer token, K where it is one without pictures.
    """

    rows: Tensor
    text: Tensor
    last: Tensor
    place: Tensor

    @classmethod
    def of(cls, batch: Batch, visual: Tensor) -> Turns:
        """The questions that have answers; `visual` (B, S) bool are visual tokens and the breaks between their lines."""
        sample, turn = batch["sample"], batch["turn"]
        rows, columns, _ = supervised(batch["labels"], sample, turn)
        keys = torch.stack([rows, sample[rows, columns], turn[rows, columns]])  # (3, n), questions one behind the other
        (row, own, which), place, many = keys.unique_consecutive(dim=1, return_inverse=True, return_counts=True)
        last = columns[many.cumsum(0) - many]  # the token that predicts the answer's first
        same = (sample[row] == own[:, None]) & ((turn[row] == 0) | (turn[row] == which[:, None]))  # (K, S)
        shown = visual[row] & same
        text = same & ~shown & (shown.cumsum(1) > 0)
        text &= torch.arange(sample.shape[1], device=sample.device) < last[:, None]
        seeing = shown.any(1)
        number = torch.where(seeing, seeing.cumsum(0) - 1, int(seeing.sum()))
        return cls(row[seeing], text[seeing], last[seeing], number[place])

    def mean(self, values: Tensor) -> Tensor:
        """(n,) of answer tokens -> (K,) means of questions."""
        many = len(self.rows)
        total = values.new_zeros(many + 1).index_add(0, self.place, values)
        return (total / torch.bincount(self.place, minlength=many + 1).clamp(min=1))[:many]


@contextmanager
def twice(anatomy: Anatomy, layer: int, visual: Tensor) -> Iterator[list[Tensor]]:
    """From decoder layer `layer` on the batch runs twice: B rows as they are, then B rows with the keys `visual` (B, S) unseen.

    Gives the list into which that layer's input (B, S, D) is put.
    """
    seen: list[Tensor] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden, mask = args[0] if args else kwargs["hidden_states"], kwargs["attention_mask"]  # (B, 1, S, S), additive
        if not seen:
            seen.append(hidden)
            hidden = torch.cat([hidden, hidden])
        blind = mask.masked_fill(visual[:, None, None, :], torch.finfo(mask.dtype).min)
        kwargs = {**kwargs, "attention_mask": torch.cat([mask, blind])}
        kwargs["position_embeddings"] = tuple(torch.cat([e, e]) if len(e) > 1 else e for e in kwargs["position_embeddings"])
        kwargs["position_ids"] = torch.cat([kwargs["position_ids"]] * 2)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    hooks = [one.register_forward_pre_hook(enter, with_kwargs=True) for one in anatomy.layers[layer:]]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class ExitTraining(TechniqueObjective):
    """Cross-entropy of one layer's router against what leaving after it does to the answers."""

    Options = ExitOptions
    options: ExitOptions
    name = "dyvte"

    def bind(self, model: nn.Module, processor: Any) -> None:
        if self.options.turns != "independent":
            raise UnsupportedError("in a dialogue later questions see earlier ones; routers learn on independent questions.")
        super().bind(model, processor)
        if len(self.anatomy.layers) < 2:
            raise UnsupportedError("a language model of one layer has no layer after which visual tokens could leave.")

    def compile(self, model: nn.Module) -> None:
        """Only the vision tower: what runs twice changes from step to step."""
        self.anatomy.vision_tower.compile()

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        layer = int(torch.randint(len(self.anatomy.layers) - 1, ()))
        return self.exit_loss(model, batch, layer)

    def exit_loss(self, model: Any, batch: Batch, layer: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the router after `layer`."""
        assert isinstance(self.reducer.parts, nn.ModuleList)  # made in `bind`
        features, may = self.lesson(model, batch, layer)
        logits = self.reducer.parts[layer](features)  # (K, 2)
        loss = F.cross_entropy(logits, may.long(), reduction="sum") / max(1, len(may))
        leaves = logits.argmax(-1) == 1
        parts = {"exit_share": may, "wrong_exits": leaves & ~may, "missed_exits": ~leaves & may}
        return loss, {name: part.float().sum() / max(1, len(may)) for name, part in parts.items()}

    @torch.no_grad()
    def lesson(self, model: Any, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """(K, 2 D) what the router after `layer` reads, and (K,) bool whether the picture may leave there."""
        visual = self.anatomy.visual_mask(batch["input_ids"])
        turns = Turns.of(batch, visual)
        with twice(self.anatomy, layer + 1, visual) as seen:
            hidden = self.states(model, batch)  # (2 B, S, D)
        rows, columns, labels = supervised(batch["labels"], batch["sample"], batch["turn"])
        with_, without = (self.anatomy.model.lm_head(half[rows, columns]).float() for half in hidden.chunk(2))  # (n, V)
        agree = turns.mean((with_.argmax(-1) == without.argmax(-1)).float())
        losses = [turns.mean(F.cross_entropy(logits, labels, reduction="none")) for logits in (with_, without)]
        may = exit_label(agree, *losses, agreement=self.options.agreement, ratio=self.options.ratio)
        return exit_features(seen[0], turns.rows, turns.text, turns.last), may


def exit_label(agree: Tensor, full: Tensor, without: Tensor, *, agreement: float = 0.99, ratio: float = 1.03) -> Tensor:
    """(K,) bool: whether predictions agree and the cross-entropy `without` the picture is hardly more than the `full` one."""
    return (agree > agreement) & (without < ratio * full)
