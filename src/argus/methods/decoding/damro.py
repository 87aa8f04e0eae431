"""DAMRO: Dive into the Attention Mechanism of LVLM to Reduce Object Hallucination (arXiv 2410.04514).

The CLS token of the vision encoder attends most to a few outlier patches, often background of high norm, and the language model's
attention falls on the same ones; words for things that are not there lean on them. So the model is contrasted with itself seeing
these k patches and nothing else of the picture, which subtracts what they alone suggest.

    A = softmax(Q K^T / sqrt(C))        of the encoder block that made the features, CLS first, over 1 + N keys
    o = top-k of A[cls, patches], in falling order
    z_cd = (1 + alpha) z - alpha z'      z' with the picture replaced by its patches o; cutoff beta, see `contrastive`

Shapes: A[cls, patches] (crops, N) -> o (crops, k). alpha 2, beta 0.1, k 10 are the published values for LLaVA-1.5 and LLaVA-NeXT.

The published code reads Q and K of LLaVA's CLIP as one head of the full width C (`head_mode: single`), that of InstructBLIP as
heads whose maps are averaged, as the paper's text suggests (`mean`). The k tokens are not put back into raster order and follow
one another, so they lose their places where positions are counted; models with row and column positions (mRoPE) keep them. Of a
picture in tiles each tile gives its k, one tile after the other, with one line break behind them; the published code for
LLaVA-NeXT packs the first crop's alone. InstructBLIP's Q-Former it re-runs on the k patches, without the CLS token, and shows the
branch the queries that have read these alone: so do connectors here that resample (`resamples`), whose branch is as long as the
prompt; published values there are k 4, alpha 1.5 for captions and 0.5 for yes or no. Other connectors whose tokens are not single
patches or even groups of them are refused. Encoders without a CLS token are not covered by the paper: the attention
that a patch receives, averaged over all queries, stands in (Argus's choice; `without_cls: error` refuses instead).

`select: random` shows k patches drawn by lot, the same for a picture whatever else is in the batch: the control.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.methods.decoding.contrastive import Contrastive, ContrastiveOptions
from argus.methods.decoding.prompt import Prompt
from argus.methods.encoded import Encoding, Kind, uniform
from argus.methods.reduction.selectors import ranks
from argus.model.anatomy.base import Anatomy


class DamroOptions(ContrastiveOptions):
    """Options of DAMRO."""

    alpha: float = Field(2.0, ge=0, le=100, description="weight of the contrast; 0 for none")
    tokens: int = Field(10, ge=0, description="k, patches of each crop that the negative branch is shown; 0 shows it no picture")
    head_mode: Literal["single", "mean"] = Field(
        "single", description="the encoder's heads read as one of full width, as published for LLaVA, or their maps averaged"
    )
    select: Literal["outliers", "random"] = Field("outliers", description="the patches with the most attention, or drawn by lot")
    seed: int = Field(0, ge=0, description="of the lot")
    without_cls: Literal["error", "received"] = Field(
        "received", description="encoders without CLS: refuse, or take the patches that receive the most attention"
    )


class Damro(Contrastive):
    """Contrast with the outlier patches alone."""

    Options = DamroOptions
    options: DamroOptions

    def check(self, anatomy: Anatomy) -> None:
        options = self.options
        self.anatomy, self.patchwise = anatomy, anatomy.resamples and options.tokens > 0
        if options.select == "random" or not options.tokens:
            self.fingerprinted = options.tokens > 0
            return
        if not anatomy.has_cls and options.without_cls == "error":
            raise UnsupportedError(
                f"the vision encoder of {anatomy.family} has no CLS token, whose attention finds the outliers.",
                hint="Use without_cls: received to take the patches that receive the most attention.",
            )
        self.kind: Kind = "cls" if anatomy.has_cls else "received"
        if options.head_mode == "single":
            self.kind = "cls_single" if anatomy.has_cls else "received_single"
        self.kinds = (self.kind,)
        if not anatomy.tower_options(self.kinds):
            anatomy.encoder_attention  # noqa: B018 - refuses encoders without one

    def negative(self, prompt: Prompt) -> Prompt:
        tokens = prompt.tokens
        if self.patchwise:
            return prompt.made_of(self.anatomy, self._patches)
        if not self.options.tokens:
            return prompt.only(torch.full_like(tokens.crop, -1))
        if self.options.select == "random":
            scores = uniform(prompt.fingerprints(), tokens.cell, self.options.seed)
        else:
            scores = prompt.scores(self.kind)
        place = ranks(scores, tokens.crop, torch.ones_like(tokens.crop, dtype=torch.bool))  # (T,) 0 = the most attention
        return prompt.only(place.where(place < self.options.tokens, -1))

    def _patches(self, encoding: Encoding) -> Tensor:
        """(G, k) patches of each crop of one encoding, those with the most attention or the greatest lots first."""
        if self.options.select == "random":
            assert encoding.fingerprints is not None  # `check` asks for them
            cells = torch.arange(encoding.features.tokens.shape[1], device=encoding.fingerprints.device)
            own = encoding.fingerprints[:, None].expand(-1, len(cells))
            scores = uniform(own, cells.expand_as(own), self.options.seed)
        else:
            scores = encoding.patches[self.kind]
        return scores.topk(min(self.options.tokens, scores.shape[1]), -1).indices
