"""DyVTE: Accelerating Multimodal LLMs via Dynamic Visual-Token Exit and the Empirical Findings (arXiv 2411.19628).

Behind some layer the text has taken from a picture what it needs, and all visual tokens can leave at once; which layer that is
differs from question to question. A small router per layer reads the state of the text and decides.

    t_mean = mean of the text's states behind the picture, without the last prompt token
    t_last = state of the last prompt token
    logits = W2 GELU(W1 [t_mean ; t_last])              exit after layer l  iff  logits[exit] - logits[keep] > threshold

Shapes: f = [t_mean ; t_last] (B, 2 D), W1 (hidden, 2 D), W2 (2, hidden), both without bias; hidden 2048 is the published code's.
The router of layer l reads the output of layer l, which is the input of layer l + 1. Text keeps its positions, layers behind
the exit cache no visual tokens, and nothing is decided any more while decoding. After the last layer nothing is left to save,
so L - 1 routers serve L layers. Each item of a batch exits at its own layer.

The published code finds the text by fixed positions of one template, and runs one prompt at a time; here positions come from
the prompt, text starts behind the first picture, and a prompt without any text there has t_mean = 0. Its router is built with
dropout that is never used; there is none here. Trained by the objective `dyvte`.

Besides the routers: one fixed layer for all (the sweep of the paper's analysis), and a lot with a given average, the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.methods.attach import Attachment
from argus.methods.calibration import Calibration, CalibrationOptions, refuse_uncalibrated
from argus.methods.learned import LearnedOptions, LearnedReducer
from argus.methods.reduction.base import Reducer, Step
from argus.methods.reduction.scores import NoScore, RandomScore
from argus.model.anatomy.base import Anatomy


class DyVTEOptions(LearnedOptions):
    """Options of DyVTE."""

    keep: float = Field(
        0.0, ge=0, le=1, description="share of visual tokens behind the exit: none, or all with 1, which never exits"
    )
    policy: Literal["router", "fixed", "random"] = Field(
        "router", description="who chooses the layer: the trained routers, `layer` for all, or a lot whose average is `layer`"
    )
    layer: float | None = Field(None, ge=0, description="fixed, random: layer, 0-based, after which visual tokens leave")
    threshold: float = Field(0.0, description="router: by how much exit must beat keep; greater values exit later")
    hidden: int = Field(2048, ge=1, description="width of the routers")
    seed: int = Field(0, description="of the lot")
    calibrate: CalibrationOptions | None = Field(
        None, description="random: take the routers' average on questions for `layer`, instead of giving it"
    )

    @model_validator(mode="after")
    def _consistent(self) -> DyVTEOptions:
        if (self.policy == "router") == (self.layer is not None or self.calibrate is not None):
            raise ValueError("policies fixed and random need `layer` (random: or `calibrate`), and routers take none")
        if self.policy == "fixed" and (self.calibrate is not None or self.layer != int(self.layer or 0)):
            raise ValueError("policy fixed takes one whole layer")
        return self


class ExitRouter(nn.Module):
    """(..., 2 D) -> (..., 2): keep, exit."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2 * width, hidden, bias=False), nn.Linear(hidden, 2, bias=False)
        nn.init.xavier_uniform_(self.inner.weight)
        nn.init.xavier_uniform_(self.outer.weight)

    def forward(self, f: Tensor) -> Tensor:
        return self.outer(nn.functional.gelu(self.inner(f)))


def exit_features(hidden: Tensor, rows: Tensor, text: Tensor, last: Tensor) -> Tensor:
    """What a router reads of K prompts.

    Args:
        hidden: (B, S, D) output of a layer.
        rows: (K,) row of each prompt.
        text: (K, S) bool, its text behind the picture without the last prompt token.
        last: (K,) position of its last prompt token.

    Returns:
        (K, 2 D) in float32.
    """
    prompt, column = text.nonzero(as_tuple=True)
    states = hidden[rows[prompt], column].float()  # (text tokens, D)
    total = states.new_zeros(len(rows), hidden.shape[-1]).index_add(0, prompt, states)
    mean = total / text.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([mean, hidden[rows, last].float()], dim=-1)


class DyVTE(LearnedReducer):
    """Lets all visual tokens of a prompt leave after a layer of its own."""

    Options = DyVTEOptions
    options: DyVTEOptions

    def __init__(self, options: DyVTEOptions) -> None:
        super().__init__(options)
        self.score = RandomScore(options.seed) if options.policy == "random" else NoScore()
        self.rounding = RandomScore(options.seed + 1)
        self.depends_on_question = options.policy == "router"  # type: ignore[misc]
        self.depth = 0

    @classmethod
    def calibrated(cls, options: DyVTEOptions, questions: Calibration) -> DyVTEOptions:
        """The options of the lot with the layer after which the routers let prompts exit on average."""
        if options.calibrate is None:
            return options
        given = options.model_dump(exclude_unset=True, exclude={"calibrate"})
        routers = cls(DyVTEOptions.model_validate({**given, "policy": "router"}))
        exits = list[int]()
        with Attachment(questions.anatomy.model, "dyvte", routers) as attachment:
            for prompt in questions.prompts():
                questions.anatomy.model(**prompt)
                exits.append(sum(count.kept > 0 for count in attachment.counts))
        return DyVTEOptions.model_validate({**given, "layer": sum(exits) / max(1, len(exits))})

    def make(self, anatomy: Anatomy) -> nn.Module:
        width = anatomy.language_model.config.hidden_size
        return nn.ModuleList(ExitRouter(width, self.options.hidden) for _ in anatomy.layers[:-1])

    def check(self, anatomy: Anatomy) -> None:
        o, self.depth = self.options, len(anatomy.layers)
        refuse_uncalibrated(o.calibrate)
        if o.keep not in (0, 1):
            raise UnsupportedError("all visual tokens exit at once: keep is 0, or 1 for no exit.")
        if o.layer is not None and o.layer > self.depth - 1:
            raise UnsupportedError(f"there is no layer {o.layer:g}: the language model has only {self.depth} layers.")
        if o.policy == "router":
            super().check(anatomy)
        else:
            Reducer.check(self, anatomy)

    def layers(self, depth: int) -> Sequence[int]:
        o = self.options
        if o.keep == 1:
            return ()
        if o.policy == "fixed":
            return tuple(range(int(o.layer or 0) + 1, depth)[:1])
        return tuple(range(1, depth))

    def keep(self, step: Step) -> Tensor:
        if self.options.policy == "fixed" or not bool(step.present.any()):
            return torch.zeros_like(step.present)
        if self.options.policy == "random":
            return step.layer <= self._drawn(step)
        return ~self._exits(step)[step.tokens.item]

    def _exits(self, step: Step) -> Tensor:
        """(B,) bool: the router's decision after the layer before `step.layer`."""
        assert isinstance(self.parts, nn.ModuleList)  # made in `check`
        rows = torch.arange(len(step.real), device=step.real.device)
        columns = torch.arange(step.real.shape[1], device=step.real.device)
        last = columns.masked_fill(~step.real, -1).max(1).values  # (B,)
        text = step.text() & (columns < last[:, None])
        if step.tokens.breaks is not None:
            text[step.tokens.breaks[:, 0], step.tokens.breaks[:, 1]] = False
        keep, leave = self.parts[step.layer - 1](exit_features(step.hidden, rows, text, last)).unbind(-1)
        return leave - keep > self.options.threshold

    def _drawn(self, step: Step) -> Tensor:
        """(T,) layer after which each token's prompt exits, drawn for its first picture; uniform around `layer`."""
        mean, last = self.options.layer or 0.0, self.depth - 1
        lowest = max(0.0, 2 * mean - last)
        first = torch.searchsorted(step.tokens.item, step.tokens.item)  # (T,) the first token of the same item
        drawn = lowest + (2 * mean - 2 * lowest) * self.score(step)
        return (drawn + self.rounding(step)).floor().clamp(max=last)[first]  # rounded by lot, so that the average stays
