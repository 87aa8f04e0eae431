"""Score producers: what a visual token is worth, (T,) float.

- `EncoderAttention`: attention in the vision encoder, of the CLS token or received from all patches.
- `LayerAttention`: attention in the decoder layer before the drop, from the last prompt token, from the text, or from
  all visual tokens.
- `RandomScore`: uniform numbers that depend on a seed, on the picture and on the place in it, and on nothing else.
- `NoScore`: zeros, for reducers that choose in another way.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.methods.encoded import uniform
from argus.methods.reduction.base import Rows, Score, Step
from argus.model.anatomy.base import Anatomy


class EncoderAttention(Score):
    """Attention of the encoder block that made the features, mean over heads.

    `cls`: the row of the CLS query over the patches (softmax over all keys, CLS included, not renormalised).
    `received`: for encoders without CLS, the mean over all patches' queries of the attention on a patch; this
    stand-in is Argus's choice.

    Args:
        without_cls: what to do when the encoder has no CLS token.
    """

    def __init__(self, without_cls: Literal["error", "received"] = "received") -> None:
        self.without_cls = without_cls
        self.patches = "cls"

    def check(self, anatomy: Anatomy) -> None:
        if not anatomy.has_cls:
            if self.without_cls == "error":
                raise UnsupportedError(
                    f"the vision encoder of {anatomy.family} has no CLS token, whose attention is the score.",
                    hint="Use without_cls: received to score patches by the attention they receive.",
                )
            self.patches = "received"

    def __call__(self, step: Step) -> Tensor:
        return step.patches("cls" if self.patches == "cls" else "received")


class LayerAttention(Score):
    """Attention on each visual token in the previous decoder layer, mean over heads and over the chosen query rows.

    Args:
        rows: `last`, the last prompt token; `text`, text behind the first visual token; `visual`, all visual tokens.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows: Rows = rows
        self.attention = (rows,)

    def __call__(self, step: Step) -> Tensor:
        return step.attention(self.rows).mean(1)[step.tokens.item, step.tokens.column]


class RandomScore(Score):
    """Uniform in [0, 1): a pure function of (seed, pixels of the crop, cell), in every batch and on every device."""

    fingerprints = True

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, step: Step) -> Tensor:
        return uniform(step.fingerprints(), step.tokens.cell, self.seed)


class NoScore(Score):
    """All tokens are worth the same: the reducer chooses in another way."""

    def __call__(self, step: Step) -> Tensor:
        return torch.zeros(len(step.tokens), device=step.tokens.cell.device)
