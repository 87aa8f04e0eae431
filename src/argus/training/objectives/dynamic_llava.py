"""Training of Dynamic-LLaVA (arXiv 2412.00876): a model and the predictors of what its later layers see, together.

No token is removed. In front of layer l the predictors give two logits per visual and per answer token; a straight-through Gumbel
softmax draws 0 or 1, and from layer l on attention runs under that policy (`policy_attention`), through which gradients reach the
predictors:

    m = gumbel_softmax(log_softmax(logits), tau, hard)[keep]
    loss = CE + weight [ mean over pictures (keep - mean m)^2 + mean over long answers (keep_text - mean m)^2 ]
    tau = start (end / start)^(share of the steps done)

Everything else - system turn, question - has policy 1. Answers shorter than `min_answer` tokens keep everything and add nothing
to the loss. Pictures are ranked without their questions and text tokens one by one, so a row may hold many independent turns.

Shapes: hidden states (B, S, D), policy (B, S). Constants are the published configuration's: weight 100, tau 1.0 -> 0.1, answers
from 50 tokens, eps 1e-6; there, language model and connector learn at 5e-6, predictors at 2e-4, from an instruction-tuned model.
A dialogue counts once per answer, where that code takes the answers of a sample together. Attention under a policy has no fused
kernel, and its maps are kept in fp32: it takes memory in the square of the row's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import AttentionCall, replace_kernel
from argus.methods.reduction.dynamic_llava import DynamicLlava
from argus.methods.reduction.policy_attention import policy_attention
from argus.methods.reduction.selectors import groups
from argus.model.anatomy.base import VisualTokens
from argus.training.objectives.base import Batch
from argus.training.objectives.technique import TechniqueObjective, TechniqueOptions
from argus.training.rows import IGNORE


class DynamicLlavaTrainingOptions(TechniqueOptions):
    """How the predictors learn."""

    ratio_weight: float = Field(100.0, ge=0, description="weight of the squared distances from the shares to keep")
    tau_start: float = Field(1.0, gt=0, description="temperature of the Gumbel softmax at the first step")
    tau_end: float = Field(0.1, gt=0, description="and at the last; in between it falls geometrically")
    min_answer: int = Field(50, ge=1, description="tokens of an answer from which on some are dropped")
    eps: float = Field(1e-6, ge=0, le=1e-3, description="share of attention given to all keys alike; 0 for none")


class Sparse:
    """The policy of one forward pass, from layer l on.

    Attributes:
        policy: (B, S); None until layer l is entered.
        shares: mean of m per picture, and per long answer.
    """

    def __init__(self) -> None:
        self.policy: Tensor | None = None
        self.shares: dict[str, Tensor] = {}


class DynamicLlavaTraining(TechniqueObjective):
    """Answer cross-entropy under a drawn policy, and the shares that it keeps."""

    name = "dynamic_llava"
    Options = DynamicLlavaTrainingOptions
    options: DynamicLlavaTrainingOptions
    reducer: DynamicLlava

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        depth = len(self.anatomy.layers)
        if self.reducer.options.layer >= depth:
            raise UnsupportedError(f"it decides in front of layer {self.reducer.options.layer} of only {depth} layers.")

    def tau(self) -> float:
        """Temperature at the present step."""
        return self.options.tau_start * (self.options.tau_end / self.options.tau_start) ** self.progress

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if any(getattr(layer, "gradient_checkpointing", False) for layer in self.anatomy.layers):
            raise UnsupportedError("checkpointing computes layers again when their policy is gone.", hint="checkpointing: false")
        with self.under_policy(batch) as sparse:
            answer, parts = super().loss(model, batch)
        kept = {f"kept_{name}": share.mean().detach() for name, share in sparse.shares.items()}
        return answer + self.options.ratio_weight * self.gap(sparse), {**parts, "answer": answer.detach(), **kept}

    def gap(self, sparse: Sparse) -> Tensor:
        """How far the shares kept are from those asked for, squared."""
        aims = {"visual": self.reducer.options.keep, "text": self.reducer.options.keep_text}
        return sum(((share - aims[name]).square().mean() for name, share in sparse.shares.items()), torch.zeros(()))

    @contextmanager
    def under_policy(self, batch: Batch) -> Iterator[Sparse]:
        """Layers from l on attend under the policy that is drawn when l is entered."""
        first, depth, sparse = self.reducer.options.layer, len(self.anatomy.layers), Sparse()

        def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.draw(sparse, args[0] if args else kwargs["hidden_states"], batch)

        def kernel(call: AttentionCall, value: Tensor) -> Tensor:
            assert sparse.policy is not None  # layer l came first
            return policy_attention(call, value, sparse.policy, self.options.eps)

        placed: list[Any] = [self.anatomy.layers[first].register_forward_pre_hook(enter, with_kwargs=True)]
        try:
            placed += [replace_kernel(self.anatomy.decoder_attention(index), kernel) for index in range(first, depth)]
            yield sparse
        finally:
            for hook in placed:
                hook.remove()

    def draw(self, sparse: Sparse, hidden: Tensor, batch: Batch) -> None:
        """Draws the policy for the states (B, S, D) that enter layer l."""
        policy = torch.ones(hidden.shape[:2], device=hidden.device)
        answer = answer_numbers(batch["labels"], batch["sample"], batch["turn"])  # (B, S)
        sizes = torch.bincount(answer[answer >= 0])
        long = (answer >= 0) & (sizes >= self.options.min_answer)[answer] if len(sizes) else answer >= 0
        if bool(long.any()):
            kept = self._kept(self.reducer.text_logits(hidden[long]))  # (n,)
            policy = policy.masked_scatter(long, kept)
            sparse.shares["text"] = means(kept, answer[long].unique(return_inverse=True)[1])
        if batch.get("pixel_values") is not None:
            tokens: VisualTokens = self.anatomy.visual_tokens(batch)
            group, place = groups(tokens, "image"), (tokens.item, tokens.column)
            kept = self._kept(self.reducer.image_logits(hidden[place], torch.ones_like(group, dtype=torch.bool), group))
            policy = policy.index_put(place, kept)
            sparse.shares["visual"] = means(kept, group)
        sparse.policy = policy

    def _kept(self, logits: Tensor) -> Tensor:
        """(n, 2) -> (n,) 0 or 1, with the gradient of the soft draw."""
        return F.gumbel_softmax(logits.float().log_softmax(-1), self.tau(), hard=True)[:, 0]


def answer_numbers(labels: Tensor, sample: Tensor, turn: Tensor) -> Tensor:
    """(B, S) number of the answer that each token belongs to, over the batch; -1 for tokens of no answer.

    An answer is a run of learned tokens of one turn.
    """
    learned = labels != IGNORE
    goes_on = learned[:, 1:] & learned[:, :-1] & (sample[:, 1:] == sample[:, :-1]) & (turn[:, 1:] == turn[:, :-1])
    begins = learned & ~F.pad(goes_on, (1, 0))
    number = begins.flatten().cumsum(0).view_as(labels) - 1
    return number.masked_fill(~learned, -1)


def means(values: Tensor, group: Tensor) -> Tensor:
    """(n,) values -> their mean in each group, numbered from 0."""
    count = torch.bincount(group)
    return values.new_zeros(len(count)).index_add(0, group, values) / count
