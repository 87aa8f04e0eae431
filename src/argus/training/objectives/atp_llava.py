"""Trains the thresholds of ATP-LLaVA (arXiv 2412.00447), with the model or in a frozen one, towards a number of visual tokens.

    L = L_ntp + w_atp L_atp + w_target L_target
    L_atp = sum over modules of (kept_l / N) l            l: the layer in front of which the module acts; late tokens weigh more
    L_target = | mean over modules and batch of kept_l - keep N |

kept_l is the sum of the soft masks (`argus.methods.reduction.atp_llava`) that are left in front of layer l, N what the picture
has; both weights are the paper's, 0.05 and 0.2. The budget is one of the batch, so that a question may take more than another.
Thresholds read one question, so a row holds one (`questions: 1` in the stage's data), and answers are not read. L_target is in
tokens and its gradient large: with the model learning beside, `max_grad_norm` should not be small.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.methods.attach import Attachment
from argus.methods.reduction.atp_llava import AtpLlava
from argus.training.objectives.base import Batch
from argus.training.objectives.technique import TechniqueObjective, TechniqueOptions
from argus.training.rows import IGNORE


class ThresholdOptions(TechniqueOptions):
    """How the budget is enforced."""

    depth_weight: float = Field(0.05, ge=0, description="weight of L_atp, which makes late tokens dear")
    target_weight: float = Field(0.2, ge=0, description="weight of L_target, the distance from the number wanted")


class ThresholdTraining(TechniqueObjective):
    """Answers through soft masks, and what the masks let through."""

    Options = ThresholdOptions
    options: ThresholdOptions
    name = "atp_llava"

    def bind(self, model: nn.Module, processor: Any) -> None:
        if self.options.packing:
            raise UnsupportedError("thresholds read one question, and a packed row holds several.", hint="Leave 'packing' out.")
        super().bind(model, processor)

    def compile(self, model: nn.Module) -> None:
        """Only the vision tower: masks reach the language model through hooks."""
        self.anatomy.vision_tower.compile()

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if int(batch["turn"].max()) > 1:
            raise UnsupportedError("thresholds read one question, and the rows hold several.", hint="Set data.questions to 1.")
        reducer = self.reducer
        assert isinstance(reducer, AtpLlava)  # the technique of this name
        reducer.counts.clear()
        with Attachment(model, self.name, reducer) as attachment:
            attachment.prompts((batch["sample"] >= 0) & ((batch["labels"] != IGNORE).cumsum(1) == 0))
            loss, parts = super().loss(model, batch)
        if not reducer.counts:  # no pictures
            return loss, parts
        shown = reducer.total > 0
        kept = {layer: count[shown] for layer, count in reducer.counts.items()}
        deep, target = budget(kept, reducer.total[shown], reducer.options.keep)
        loss = loss + self.options.depth_weight * deep + self.options.target_weight * target
        share = torch.stack(list(kept.values())).mean() / reducer.total[shown].mean()
        return loss, {**parts, "kept_share": share, "over_target": target}


def budget(kept: dict[int, Tensor], total: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """L_atp and L_target.

    Args:
        kept: layer -> (B,) visual tokens left in front of it.
        total: (B,) visual tokens at first.
        keep: share of them that is wanted.
    """
    deep = torch.stack([(count / total).mean() * layer for layer, count in kept.items()]).sum()
    average = torch.stack(list(kept.values())).mean()
    return deep, (average - keep * total.mean()).abs()
