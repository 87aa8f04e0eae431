"""YOPO: Treat Visual Tokens as Text? But Your MLLM Only Needs Fewer Efforts to See (arXiv 2410.06169).

All visual tokens stay; what is cut, once for all inputs, is the computation done for them in prefill:

    neighbours  a visual token sees text in front of it, and visual tokens at most (window - 1) / 2 rows and columns away
    heads       heads that ignore pictures compute nothing for them: visual rows get zeros, text rows do not see them
    ffn         visual rows use the first `ffn` of the neurons, text rows all
    layers      from `stop_layer` on nothing visual is computed, or seen, at all

What is cut is not computed: `visual_attention` takes only the products that are left, and visual rows go through slices of
projections and FFN. `mode` says how text loses sight of pictures in cut heads and late layers. `presoftmax` removes the visual
keys, so that late layers run without visual tokens and do not cache them; `postsoftmax` strikes out their probabilities without
renormalising, as the published LLaVA code does, which needs their keys and saves nothing in late layers. Following that code,
neighbours are seen in both directions although the language model is causal; `causal: true` keeps to raster order. The paper's
13B recipe, with fine-tuning: window 5, 30 of 40 heads, ffn 1/2, stop_layer 20 of 40; without training only heads and layers are
cut. Nothing is cut by default, as what can be cut depends on the model.

Heads are found on data (`calibrate`). With A the attention map of a layer and head and V the visual columns, sums over all rows,

    rho = sum A[:, V] / sum A[:, text],        vote = rho > threshold

and a head is kept if more than 40 of 100 prompts vote for it; the first two layers keep all heads. `keep_heads` sets the
threshold by the share of heads to keep. A mask can also be read from a file, as published ones are. With several pictures or
tiles the neighbourhood is within each; masks are per query head with grouped queries. The published code counts on fixed
positions of one template; here they come from the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import AttentionCall, mean_attention, replace_kernel, watch
from argus.methods.calibration import Calibration, CalibrationOptions, refuse_uncalibrated
from argus.methods.layer_run import Run
from argus.methods.reduction.base import Reducer, ReducerOptions, Step
from argus.methods.reduction.head_mask import read_head_mask
from argus.methods.reduction.routed_rows import routed_ffn, routed_projections
from argus.methods.reduction.scores import NoScore
from argus.methods.reduction.visual_attention import visual_attention
from argus.model.anatomy.base import Anatomy, Listener

PROTECTED = 2  # first layers, whose heads are all kept
FFN = ("gate_proj", "up_proj", "down_proj", "act_fn")


class HeadVoteOptions(CalibrationOptions):
    """How heads are chosen."""

    samples: int = Field(100, ge=1, description="prompts that vote")
    vote: float = Field(0.4, ge=0, lt=1, description="share of the prompts that must vote for a head")
    threshold: float = Field(
        0.035, ge=0, description="rho above which a prompt votes; the paper's for 30 of 40 heads of a 13B model"
    )
    keep_heads: float | None = Field(
        None, ge=0, le=1, description="share of the heads behind the second layer that are kept, instead of a threshold"
    )
    lot: bool = Field(False, description="as many heads per model, but drawn by lot: the control")


class YopoOptions(ReducerOptions):
    """Options of YOPO."""

    keep: float = Field(
        0.0, ge=0, le=1, description="share of visual tokens that layers from `stop_layer` on see: none, or all with 1"
    )
    window: int | None = Field(
        None, ge=1, le=1023, description="odd width of the neighbourhood; all visual tokens when not given"
    )
    causal: bool = Field(False, description="neighbours only in front of a token")
    heads: tuple[tuple[bool, ...], ...] | None = Field(
        None, description="layers x query heads, true = kept, or a .npy, .safetensors or .json file of them; all when not given"
    )
    ffn: float = Field(1.0, ge=0, le=1, description="share of the FFN's neurons, the first ones, that visual tokens use")
    stop_layer: int | None = Field(
        None, ge=1, description="first layer, 0-based, without visual computation; none when not given"
    )
    mode: Literal["presoftmax", "postsoftmax"] = Field(
        "presoftmax", description="how text loses sight of pictures: keys removed, or probabilities struck out"
    )
    calibrate: HeadVoteOptions | None = Field(None, description="find `heads` on prompts, instead of giving them")

    @field_validator("heads", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return read_head_mask(Path(value)) if isinstance(value, str | Path) else value

    @field_validator("window")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError("a window has a middle, so its width is odd")
        return value


class Yopo(Reducer):
    """Cuts what is computed for visual tokens, not the tokens."""

    Options = YopoOptions
    options: YopoOptions

    def __init__(self, options: YopoOptions) -> None:
        super().__init__(options)
        self.score = NoScore()

    @property
    def _stops(self) -> int | None:
        return self.options.stop_layer if self.options.keep < 1 else None

    @classmethod
    def calibrated(cls, options: YopoOptions, questions: Calibration) -> YopoOptions:
        """The options with the heads for which prompts vote."""
        how = options.calibrate
        if how is None:
            return options
        rho = torch.stack([visual_share(questions, prompt) for prompt in questions.prompts()])
        score = vote_score(rho, how.vote)
        heads = kept_heads(score, how.threshold, how.keep_heads)
        if how.lot:
            generator = torch.Generator().manual_seed(how.seed)
            behind = heads[PROTECTED:].flatten()
            heads[PROTECTED:] = behind[torch.randperm(len(behind), generator=generator)].view(len(heads) - PROTECTED, -1)
        given = options.model_dump(exclude_unset=True, exclude={"calibrate"})
        return YopoOptions.model_validate({**given, "heads": heads.tolist()})

    def check(self, anatomy: Anatomy) -> None:
        o, depth = self.options, len(anatomy.layers)
        refuse_uncalibrated(o.calibrate)
        if o.keep not in (0, 1):
            raise UnsupportedError(
                "YOPO keeps all visual tokens up to `stop_layer` and none from there on: keep is 0, or 1 for no stop."
            )
        many = anatomy.language_model.config.num_attention_heads
        if o.heads is not None and (len(o.heads) != depth or {len(row) for row in o.heads} != {many}):
            raise UnsupportedError(f"the mask of heads has to be {depth} layers x {many} heads.")
        if o.ffn < 1 and not all(hasattr(layer.mlp, part) for layer in anatomy.layers for part in FFN):
            raise UnsupportedError(f"the FFN of {anatomy.family} is not a gated one, of which a share of neurons could be used.")
        super().check(anatomy)

    def layers(self, depth: int) -> Sequence[int]:
        return () if self._stops is None or self.options.mode == "postsoftmax" else (self._stops,)

    def keep(self, step: Step) -> Tensor:
        return torch.zeros_like(step.present)

    def hooks(self, anatomy: Anatomy, run: Callable[[], Run | None]) -> list[Listener]:
        o, depth, hooks = self.options, len(anatomy.layers), list[Listener]()
        many = anatomy.language_model.config.num_attention_heads
        given = torch.tensor(o.heads) if o.heads is not None else torch.ones(depth, many, dtype=torch.bool)  # (L, H)
        for index, layer in enumerate(anatomy.layers):
            mlp: Any = layer.mlp
            stopped = self._stops is not None and index >= self._stops
            if stopped and o.mode == "presoftmax":
                break  # nothing visual is left
            heads = torch.zeros(many, dtype=torch.bool) if stopped else given[index]
            if o.window is not None or not bool(heads.all()):
                attention = anatomy.decoder_attention(index)
                hooks.append(replace_kernel(attention, self._kernel(heads, run)))
                hooks += routed_projections(attention, heads, o.mode == "postsoftmax", run)
            if o.ffn < 1:
                hooks += routed_ffn(mlp, o.ffn, run)
        return hooks

    def _kernel(self, heads: Tensor, run: Callable[[], Run | None]) -> Callable[[AttentionCall, Tensor], Tensor]:
        o = self.options

        def kernel(call: AttentionCall, value: Tensor) -> Tensor:
            now = run()
            assert now is not None  # decoder layers run inside the language model, which began a pass
            return visual_attention(call, value, heads.to(value.device), now, o.window, o.causal, o.mode == "postsoftmax")

        return kernel


@torch.no_grad()
def visual_share(questions: Calibration, prompt: Any) -> Tensor:
    """rho (L, H) of one prompt: attention on its visual tokens over attention on its text, sums over all rows."""
    parts = questions.anatomy
    tokens = parts.visual_tokens(prompt)
    visual = tokens.mask(*prompt["input_ids"].shape)[0]  # (S,)
    shares: list[Tensor] = []

    def read(call: AttentionCall) -> None:
        everyone = torch.ones(call.query.shape[0], call.query.shape[2], device=call.query.device)
        mean = mean_attention(call, everyone)[0]  # (H, S)
        shares.append(mean[:, visual].sum(-1) / mean[:, ~visual].sum(-1))

    watches = [watch(parts.decoder_attention(index), read) for index in range(len(parts.layers))]
    try:
        parts.model(**prompt, use_cache=False, logits_to_keep=1)
    finally:
        for listener in watches:
            listener.remove()
    return torch.stack(shares).cpu()


def vote_score(rho: Tensor, vote: float) -> Tensor:
    """(n, L, H) shares of n prompts -> (L, H): the threshold below which more than `vote` of the prompts vote for a head."""
    needed = int(vote * len(rho)) + 1  # votes > vote * n
    return rho.sort(dim=0, descending=True).values[min(needed, len(rho)) - 1]


def kept_heads(score: Tensor, threshold: float, share: float | None = None) -> Tensor:
    """(L, H) bool: heads whose score is above the threshold, or the best share of them; all of the first two layers."""
    kept = score > threshold
    if share is not None:
        behind = score[PROTECTED:].flatten()
        best = behind.argsort(descending=True, stable=True)[: int(share * len(behind) + 0.5)]
        chosen = torch.zeros_like(behind, dtype=torch.bool)
        chosen[best] = True
        kept[PROTECTED:] = chosen.view(len(score) - PROTECTED, -1) if len(score) > PROTECTED else kept[PROTECTED:]
    kept[:PROTECTED] = True
    return kept
