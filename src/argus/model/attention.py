"""Attention as two matrix products, registered with transformers as `matmul`.

On CPUs its backward pass is faster than the fused kernel's, and it takes any additive or boolean mask. Query heads share key
heads as in grouped-query attention.

    softmax(Q K^T s + mask) V        Q (B, h, Q, d), K, V (B, h_kv, K, d) -> (B, Q, h, d)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface; no weights are returned."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    query = query * (scaling if scaling is not None else query.shape[-1] ** -0.5)  # d numbers a row, where scores have K
    scores = query @ key.transpose(-1, -2)  # (B, h, Q, K)
    if position_bias is not None:  # T5's
        scores = scores + position_bias
    if attention_mask is not None:
        mask = attention_mask[..., : key.shape[-2]]
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    elif query.shape[2] > 1 and (is_causal if is_causal is not None else getattr(module, "is_causal", True)):
        # transformers leaves the mask out of a plain causal prefill; the last query then sees every key.
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(key.shape[-2] - query.shape[2])
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    with torch.autocast(scores.device.type, enabled=False):  # which would write the maps twice, in fp32 and back
        weights = scores.softmax(-1).to(value.dtype)
    if dropout:
        weights = nn.functional.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make `attn_implementation="matmul"` known to transformers."""
    AttentionInterface.register("matmul", matmul_attention)
    AttentionMaskInterface.register("matmul", sdpa_mask)


register()
