"""AIM: Let Any Multi-modal Large Language Models Embrace Efficient In-Context Learning (arXiv 2406.07588).

A model that answers after a few demonstrations looks at their text; and what it would read there of the picture, the text's own
hidden states hold already. So the frozen model reads each demonstration once, by itself, and a linear map puts the states of its
text tokens in the place of their embeddings. The demonstration's picture leaves: what it costs is its text.

    H_i = LLM([V_i ; T_i]) at T_i                      F_i = W n(H_i) + b,   n(x) = sqrt(D) x / |x|
    LLM([.. F_1 .. F_k .. V_q ; T_q])                  instead of LLM([.. V_1 ; T_1 .. V_k ; T_k .. V_q ; T_q])

Every picture of a prompt but its last is a demonstration, together with the text up to the next picture: the rest of its turn,
the answer, and what the chat template puts in between. Special tokens stay as they are, as separators, and the last picture with
everything behind it is the query. So k demonstrations of m_i tokens take sum m_i positions instead of k n_v more, one behind the
other as if there had been no pictures (models with mRoPE keep every position). A prompt with one picture is left alone.

Shapes: V_i (n_v, D), T_i, H_i, F_i (m_i, D), W (D, D). Demonstrations do not see each other; they are read in one batch, padded
on the right, where causal attention needs no mask, at positions from 0 on. Only W and b learn (objective `aim_icl`).

No code is published. Where the abstracts leave something open: H_i are the last layer's states, behind the final norm, or those
behind the first `layer` layers; n makes both of one length, and W starts as the identity times mean |E| / sqrt(D) over the
embedding table E, so that virtual tokens are as long as words. `keep` leaves a share of each demonstration's visual tokens,
chosen by lot, in front of its virtual ones. Separators that a view puts between tiles stay, if they end no row of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from argus.core.errors import UnsupportedError
from argus.methods.learned import LearnedOptions, LearnedReducer
from argus.methods.reduction.base import Positions, Step
from argus.methods.reduction.demonstration_bank import DemonstrationBank
from argus.methods.reduction.scores import RandomScore
from argus.methods.reduction.selectors import TopK
from argus.model.anatomy.base import Anatomy, VisualTokens


class AimOptions(LearnedOptions):
    """Options of AIM."""

    keep: float = Field(
        0.0, ge=0, le=1, description="share of a demonstration's visual tokens that stay; 1 leaves prompts alone altogether"
    )
    positions: Positions = Field(
        "consecutive", description="consecutive: what follows moves up to where pictures left; or original"
    )
    layer: int | None = Field(
        None, ge=1, description="decoder layers behind which the states of a demonstration's text are taken; all when not given"
    )
    bias: bool = Field(True, description="whether the linear map has a b")
    projection: Literal["trained", "start"] = Field(
        "trained", description="start: W as it was before training, whatever `weights` holds: the control"
    )
    separators: tuple[int, ...] = Field(
        (), description="token ids that stay as they are, beside those that the model's configuration names as special"
    )
    bank: Path | None = Field(None, description="folder that keeps virtual tokens for later, rounded to fp16")
    remember: int = Field(256, ge=0, description="demonstrations whose virtual tokens are kept in memory, those used last")


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """The N positions of K demonstrations of a batch, one behind the other.

    Args:
        item, column: (N,) where they are.
        number: (N,) demonstration that each belongs to.
        place: (N,) or (3, N) position, counted from the demonstration's first.
        text: (N,) bool, whose states become virtual tokens.
        sizes: positions of each demonstration.
    """

    item: Tensor
    column: Tensor
    number: Tensor
    place: Tensor
    text: Tensor
    sizes: list[int]

    def chosen(self, which: Tensor) -> Demonstrations:
        """Those demonstrations for which (K,) bool is True."""
        own = which[self.number]
        number = (which.cumsum(0) - 1)[self.number[own]]
        sizes = [size for size, taken in zip(self.sizes, which.tolist(), strict=True) if taken]
        return Demonstrations(self.item[own], self.column[own], number, self.place[..., own], self.text[own], sizes)


def demonstrations(
    tokens: VisualTokens, present: Tensor, ids: Tensor, visual: Tensor, special: Tensor, positions: Tensor | None
) -> Demonstrations:
    """Finds the demonstrations of a batch.

    Args:
        tokens, present: the visual tokens, and which of them are there (T,).
        ids: (B, S) token ids.
        visual: (B, S) bool, placeholders of visual tokens.
        special: ids of separators.
        positions: (3, B, S) of mRoPE; None where positions simply count.
    """
    number = picture_numbers(tokens, visual)
    gone = torch.zeros_like(visual)
    gone[tokens.item[~present], tokens.column[~present]] = True
    item, column = ((number >= 0) & (number < number.amax(1, keepdim=True))).nonzero(as_tuple=True)
    _, group, whole = torch.unique_consecutive(
        item * visual.shape[1] + number[item, column], return_inverse=True, return_counts=True
    )
    stay = ~gone[item, column]
    if positions is not None:
        first = (whole.cumsum(0) - whole)[group]
        places = positions[:, item, column]  # (3, N)
        place = (places - places[:, first])[:, stay]
    item, column, group = item[stay], column[stay], group[stay]
    sizes = torch.bincount(group, minlength=len(whole))
    if positions is None:
        place = torch.arange(len(item), device=item.device) - (sizes.cumsum(0) - sizes)[group]
    text = ~visual[item, column] & ~torch.isin(ids[item, column], special)
    return Demonstrations(item, column, group, place, text, sizes.tolist())


def pictures(tokens: VisualTokens) -> Tensor:
    """(T,) number of the picture, in its item, that each visual token shows."""
    return torch.tensor([crop.image for crop in tokens.crops], device=tokens.crop.device)[tokens.crop]


def picture_numbers(tokens: VisualTokens, visual: Tensor) -> Tensor:
    """(B, S) number of the picture that a position shows or stands behind; -1 in front of the first."""
    place, none = (tokens.item, tokens.column), torch.full(visual.shape, -1, device=visual.device)
    number, run = none.clone(), none.clone()
    block = (visual & ~F.pad(visual, (1, 0))[:, :-1]).cumsum(1)  # runs of placeholders
    number[place], run[place] = pictures(tokens), block[place]
    ahead = torch.where(number < 0, len(tokens.crops), number).flip(1).cummin(1).values.flip(1)
    # Placeholders that begin a run and show nothing (a CLS token, a tag) belong to the picture behind them.
    return torch.where(visual & (run.cummax(1).values < block), ahead, number.cummax(1).values)


class Aim(LearnedReducer):
    """Puts virtual tokens in the place of demonstrations."""

    Options = AimOptions
    options: AimOptions
    parts: nn.Linear | None = None

    def __init__(self, options: AimOptions) -> None:
        super().__init__(options)
        self.score = RandomScore(0)  # of the visual tokens that stay; reads fingerprints, as the bank does
        self.select = TopK(options.keep)
        self.bank = DemonstrationBank(options.remember, options.bank)

    def make(self, anatomy: Anatomy) -> nn.Linear:
        table = anatomy.root.get_input_embeddings().weight.detach().float()  # (V, D)
        linear = nn.Linear(table.shape[1], table.shape[1], bias=self.options.bias)
        nn.init.eye_(linear.weight).data.mul_(table.norm(dim=1).mean() / table.shape[1] ** 0.5)
        if self.options.bias:
            nn.init.zeros_(linear.bias)
        return linear

    def untrained(self, anatomy: Anatomy) -> nn.Module:
        if self.options.projection == "trained":
            return super().untrained(anatomy)
        self.parts = self.make(anatomy).to(next(anatomy.layers.parameters()).device)
        return self.parts

    def check(self, anatomy: Anatomy) -> None:
        if getattr(anatomy.root, "fusion", "decoder") != "decoder":
            raise UnsupportedError("a demonstration is read by itself, and this model reads pictures by cross-attention, too.")
        depth = len(anatomy.layers)
        if (self.options.layer or 0) > depth:
            raise UnsupportedError(f"it reads states behind layer {self.options.layer} of only {depth} layers.")
        if self.options.projection == "start" and self.parts is None:
            self.untrained(anatomy).requires_grad_(False).eval()
        super().check(anatomy)
        self.anatomy, self.special = anatomy, special_ids(anatomy) | {*self.options.separators}

    def layers(self, depth: int) -> tuple[int, ...]:
        return () if self.options.keep == 1 else (0,)

    def keep(self, step: Step) -> Tensor:
        number, item = pictures(step.tokens), step.tokens.item
        last = number.new_zeros(len(step.real)).scatter_reduce(0, item, number, "amax")
        return (number == last[item]) | super().keep(step)

    def rewrite(self, step: Step) -> Tensor | None:
        ids = step.ids
        special = torch.tensor(sorted(self.special), device=ids.device, dtype=ids.dtype)
        positions = step.positions[-3:] if self.anatomy.mrope and step.positions is not None else None
        found = demonstrations(step.tokens, step.present, ids, self.anatomy.visual_mask(ids), special, positions)
        if not found.sizes:
            return None
        text = found.item[found.text], found.column[found.text]
        return step.hidden.index_put(text, self.virtual(step, found).to(step.hidden.dtype))

    def virtual(self, step: Step, found: Demonstrations) -> Tensor:
        """(M, D) virtual tokens of all demonstrations; those of the bank are not computed again, unless W learns."""
        assert self.parts is not None  # made when the reducer met its model
        if self.parts.weight.requires_grad or not self.bank:
            return self.fused(step, found)
        keys = self.bank.keys(self.anatomy, self.parts, step, found, self.options.layer)
        known = [self.bank.get(key) for key in keys]
        missing = torch.tensor([one is None for one in known], device=found.number.device)
        if bool(missing.any()):
            new = found.chosen(missing)
            words = torch.bincount(new.number[new.text], minlength=len(new.sizes)).tolist()
            made = iter(self.fused(step, new).split(words))
            known = [self.bank.put(key, next(made)) if one is None else one for key, one in zip(keys, known, strict=True)]
        return torch.cat([one.to(step.hidden.device, torch.float32) for one in known if one is not None])

    def fused(self, step: Step, found: Demonstrations) -> Tensor:
        """(M, D) F of each text token, in float32."""
        assert self.parts is not None
        states = aggregate(step, found, self.options.layer)[found.text].float()
        with torch.autocast(states.device.type, enabled=False):
            return self.parts(F.rms_norm(states, states.shape[-1:]))


@torch.no_grad()
def aggregate(step: Step, found: Demonstrations, layer: int | None) -> Tensor:
    """(N, D) states of the language model on each demonstration by itself, behind `layer` layers or behind the final norm."""
    rows = pad_sequence(list(step.hidden[found.item, found.column].split(found.sizes)), batch_first=True)  # (K, L, D)
    length = torch.arange(rows.shape[1], device=rows.device)
    real = length < torch.tensor(found.sizes, device=rows.device)[:, None]  # (K, L)
    places = length.expand(*found.place.shape[:-1], *real.shape).clone()  # (K, L) or (3, K, L)
    places[..., real] = found.place
    output = step.alone(rows, position_ids=places, output_hidden_states=layer is not None)
    states = output.last_hidden_state if layer is None else output.hidden_states[layer]
    return states[real]


def special_ids(anatomy: Anatomy) -> set[int]:
    """Ids that the configuration names: begin, end, padding, and the marks around pictures."""
    config = anatomy.config
    holders = (config, config.get_text_config(), getattr(anatomy.model, "generation_config", None))
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "vision_start_token_id", "vision_end_token_id")
    given = [getattr(holder, name, None) for holder in holders for name in names]
    return {int(i) for one in given if one is not None for i in (one if isinstance(one, list) else [one])}
