"""Dynamic-LLaVA: Efficient Multimodal LLMs via Dynamic Vision-language Context Sparsification (arXiv 2412.00876).

Dropping visual tokens helps the prefill only; in a long answer the generated text soon costs more than the picture. So two small
trained predictors (`dynamic_predictors`) look at what enters decoder layer l: one ranks the visual tokens of a picture, the other
decides for each generated token whether later ones may look at it in the layers from l on.

    prefill            of a picture's N visual tokens the int(keep N) with the greatest log p(keep) go on, at their positions
    with a KV cache    a new token sees the cache and itself; it stays in the caches of layers l, l + 1, ... only if
                       logit_keep > logit_drop. Layers before l keep all.
    without            all generated tokens but the last that are not kept leave in front of layer l

Both ways of decoding compute the same. A cache's first layers know the true length, so positions never shift. Predictors and
language model learn together (`argus.training.objectives.dynamic_llava`); a predictor without training chooses at random.

Constants: l = 2 (0-based: after two layers), keep 0.2, and 0.5 of the generated text as the training target; at inference the
text's share follows from the decisions and is not bounded. The published code decides for the visual tokens of one picture per
prompt; with several, each picture (all its tiles, or the frames of a video) is ranked by itself, so that a cached picture keeps
what it would keep alone. Without a cache that code keeps the same number of generated tokens in all items of a batch; here each
item keeps its own. Its optional predictor for instructions, off in the released configuration, is left out: prompts stay whole.
`lot` draws the visual tokens instead, the control that shows what the image predictor is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from argus.methods.learned import LearnedOptions, LearnedReducer
from argus.methods.reduction.base import Score, Step
from argus.methods.reduction.dynamic_predictors import Predictors, by_picture
from argus.methods.reduction.scores import RandomScore
from argus.methods.reduction.selectors import groups, ranks
from argus.model.anatomy.base import Anatomy


class DynamicLlavaOptions(LearnedOptions):
    """Options of Dynamic-LLaVA."""

    keep: float = Field(0.2, ge=0, le=1, description="share of a picture's visual tokens that layers from `layer` on see")
    keep_text: float = Field(
        0.5, gt=0, le=1, description="share of the generated tokens that training aims at; with 1 all are kept and none is asked"
    )
    layer: int = Field(2, ge=1, description="decoder layer, 0-based, in front of which the predictors decide")
    width: int = Field(512, ge=8, multiple_of=4, description="width of the predictors")
    heads: int = Field(8, ge=1, description="attention heads of the image predictor")
    blocks: int = Field(2, ge=0, description="transformer blocks of the image predictor")
    lot: bool = Field(False, description="draw the visual tokens by lot: the control")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the lot")

    @model_validator(mode="after")
    def _divides(self) -> DynamicLlavaOptions:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class KeepLogit(Score):
    """(T,) keep - drop of the image predictor, for the tokens of each picture together; it grows with log p(keep), but where
    that is all but 0 it still tells tokens apart."""

    def __init__(self, reducer: DynamicLlava) -> None:
        self.reducer = reducer

    def __call__(self, step: Step) -> Tensor:
        states = step.hidden[step.tokens.item, step.tokens.column]  # (T, D)
        logits = self.reducer.image_logits(states, step.present, groups(step.tokens, "image"))
        return logits[:, 0] - logits[:, 1]


class DynamicLlava(LearnedReducer):
    """Keeps the visual and the generated tokens that trained predictors choose."""

    Options = DynamicLlavaOptions
    options: DynamicLlavaOptions
    parts: Predictors | None = None
    # The image predictor reads no text, but the text predictor decides about each answer, which a row of several answers that
    # are decoded side by side behind one picture has no place for.
    depends_on_question = True

    def __init__(self, options: DynamicLlavaOptions) -> None:
        super().__init__(options)
        self.score = RandomScore(options.seed) if options.lot else KeepLogit(self)

    def make(self, anatomy: Anatomy) -> nn.Module:
        o = self.options
        return Predictors(anatomy.language_model.config.hidden_size, o.width, o.heads, o.blocks)

    def layers(self, depth: int) -> Sequence[int]:
        return (self.options.layer,)

    def keep(self, step: Step) -> Tensor:
        group = groups(step.tokens, "image")  # (T,)
        sizes = torch.bincount(group[step.present], minlength=int(group.max()) + 1)
        budget = (sizes.double() * self.options.keep).long()
        return ranks(self.score(step), group, step.present) < budget[group]

    def keep_generated(self, layer: int, hidden: Tensor) -> Tensor | None:
        if self.options.keep_text == 1:
            return None
        logits = self.text_logits(hidden)  # (B, G, 2)
        return logits[..., 0] > logits[..., 1]

    def image_logits(self, states: Tensor, present: Tensor, group: Tensor) -> Tensor:
        """(T, 2) keep and drop of visual tokens (T, D), those of a picture compared with each other."""
        assert self.parts is not None  # made when the reducer met its model
        padded = by_picture(states.float(), present, group)
        return self.parts.image(padded.states, padded.prev)[padded.real]

    def text_logits(self, states: Tensor) -> Tensor:
        """(..., 2) keep and drop of generated tokens (..., D)."""
        assert self.parts is not None
        return self.parts.text(states.float())
