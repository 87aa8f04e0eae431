"""Why text-to-image attention is a poor guide: attention shift and attention dispersion.

[CLS] Attention is All You Need for Training-Free Visual Token Pruning (arXiv 2412.01818), section 3. For one picture of N visual
tokens, A the head-mean attention map of a decoder layer, restricted to rows from the picture on and to its N columns j:

    image_j = sum over the picture's rows of A[., j] / (N - j)           rows of the picture that can see column j
    text_j  = mean over the rows behind the picture of A[., j]
    full_j  = sum over all rows from the picture on / (N - j + text rows)
    last_j  = A[last row, j]

Shift: the language model's curves rise with j, as the causal mask shows late tokens to fewer and nearer rows; the CLS curve of
the encoder does not. `correlation` puts a number on it. Dispersion: sorted in falling order, normalised and summed up, the
CLS curve reaches most of its mass with few tokens, the language model's last row (in its second layer) does not.

The maps are never held: each layer's rows are read in blocks while the model runs. The published code takes image positions
from constants of one prompt template; here they come from the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import AttentionCall, attention_row_blocks, watch
from argus.methods.encoded import Encoder, Kind
from argus.model.anatomy import anatomy

DISPERSION_LAYER = 1  # the second decoder layer, as in the paper's figure
CURVES = ("image", "text", "full", "last")


@dataclass(frozen=True, slots=True)
class AttentionCurves:
    """Attention on the N visual tokens of one picture, by column.

    Args:
        image, text, full, last: (layers, N) curves of the decoder layers.
        encoder: (N,) attention of the encoder's CLS token, or received where it has none.
    """

    image: Tensor
    text: Tensor
    full: Tensor
    last: Tensor
    encoder: Tensor

    def correlation(self) -> dict[str, Tensor]:
        """Spearman correlation of each curve with the column index: (layers,) per curve, a number for `encoder`."""
        return {name: spearman(getattr(self, name)) for name in (*CURVES, "encoder")}

    def dispersion(self) -> dict[str, Tensor]:
        """(N,) share of the mass that the greatest 1, 2, ... N values hold, of `last` (second layer) and `encoder`."""
        layer = min(DISPERSION_LAYER, len(self.last) - 1)
        return {"last": concentration(self.last[layer]), "encoder": concentration(self.encoder)}


@torch.no_grad()
def attention_curves(model: Any, inputs: Mapping[str, Any]) -> AttentionCurves:
    """Runs a prompt with one picture (one row, one crop) and reads its attention.

    Args:
        model: a model of a family that the anatomy knows.
        inputs: the processor's output for the prompt.

    Raises:
        UnsupportedError: not exactly one row with one crop; nothing behind the picture.
    """
    parts = anatomy(model)
    tokens = parts.visual_tokens(inputs)
    if len(inputs["input_ids"]) != 1 or len(tokens.crops) != 1:
        raise UnsupportedError(f"the curves are of one picture in one prompt, not of {len(tokens.crops)}.")
    columns = tokens.column  # (N,), ascending
    behind = inputs["input_ids"].shape[1] - int(columns[-1]) - 1
    if behind == 0:
        raise UnsupportedError("the prompt has no text behind its picture, so no text looks at it.")
    count = torch.arange(len(columns), 0, -1, device=columns.device)  # (N,): N - j
    curves: dict[str, list[Tensor]] = {name: [] for name in CURVES}

    def read(call: AttentionCall) -> None:
        image = text = torch.zeros(len(columns), device=columns.device)
        for rows, block in attention_row_blocks(call):
            on_picture = block[0].mean(0)[:, columns]  # (R, N)
            row = torch.arange(rows.start, rows.stop, device=columns.device)
            image = image + on_picture[torch.isin(row, columns)].sum(0)
            text = text + on_picture[row > columns[-1]].sum(0)
            last = on_picture[-1]
        for name, curve in (
            ("image", image / count),
            ("text", text / behind),
            ("full", (image + text) / (count + behind)),
            ("last", last),
        ):
            curves[name].append(curve)

    watches = [watch(parts.decoder_attention(index), read) for index in range(len(parts.layers))]
    encoder = Encoder(parts)
    kind: Kind = "cls" if parts.has_cls else "received"
    encoder.kinds.add(kind)
    try:
        model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        for listener in watches:
            listener.remove()
        encoder.remove()
    scores = encoder.encodings[-1].scores[kind].float()
    return AttentionCurves(**{name: torch.stack(curves[name]) for name in CURVES}, encoder=scores)


def spearman(curves: Tensor) -> Tensor:
    """Spearman correlation of (..., N) values with their index; equal values share their mean rank; 0 for constant values."""
    ranks = ((curves[..., None] > curves[..., None, :]).sum(-1) + (curves[..., None] >= curves[..., None, :]).sum(-1)).double()
    ranks = ranks - ranks.mean(-1, keepdim=True)  # twice the mean rank, centred; the factor cancels
    index = torch.arange(curves.shape[-1], device=curves.device, dtype=torch.double)
    index = index - index.mean()
    norm = (ranks.square().sum(-1) * index.square().sum()).sqrt()
    return torch.where(norm > 0, (ranks * index).sum(-1) / norm.clamp(min=1e-30), 0.0)


def concentration(values: Tensor) -> Tensor:
    """(..., N): share of the sum that the greatest 1, 2, ..., N values hold."""
    ordered = values.sort(-1, descending=True).values
    return ordered.cumsum(-1) / ordered.sum(-1, keepdim=True)


def kendall_tau(values: Tensor) -> Tensor:
    """Kendall's tau-b between all pairs of rows of (L, N) values: (L, L); 0 beside a constant row.

    Of layers' attention on the visual tokens (`attention_curves(...).text`) it says how alike they rank them: the finding that
    Accelerating MLLMs by Searching Optimal Vision Token Reduction (arXiv 2412.00556) rests on.
    """
    signs = (values[:, :, None] - values[:, None, :]).sign().double().flatten(1)  # (L, N * N); ties are 0
    norm = signs.norm(dim=1)
    return signs @ signs.T / torch.outer(norm, norm).clamp(min=1e-30)
