"""Attention under a policy: tokens that are dropped are seen by nobody else, and gradients reach what dropped them.

With scores s (the causal and padding mask already added), a policy p_j in {0, 1} per key and P_ij = p_j for i != j, P_ii = 1,

    A_ij = (exp(s_ij - m_i) P_ij + eps / K) / (sum_k exp(s_ik - m_i) P_ik + eps),        m_i = max_j s_ij

in fp32, as in DynamicViT (arXiv 2106.02034) and Dynamic-LLaVA (arXiv 2412.00876). A token always sees itself, so a dropped one is
computed as it would be behind a KV cache that then forgets it. eps = 1e-6 gives each of the K keys, masked ones too, a share of
eps / K; with eps = 0 a hard policy equals dropping the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from argus.methods.attention_rows import AttentionCall, mask_rows


def policy_softmax(scores: Tensor, policy: Tensor, eps: float) -> Tensor:
    """Attention (B, H, S, S) in fp32.

    Args:
        scores: (B, H, S, S), masked.
        policy: (B, S), 1 for keys that others may see.
    """
    length = scores.shape[-1]
    itself = torch.eye(length, dtype=torch.bool, device=scores.device)
    allowed = torch.where(itself, 1.0, policy[:, None, None, :].float())  # (B, 1, S, S)
    scores = scores.float()
    weights = (scores - scores.amax(-1, keepdim=True).detach()).exp() * allowed
    return (weights + eps / length) / (weights.sum(-1, keepdim=True) + eps)


def policy_attention(call: AttentionCall, value: Tensor, policy: Tensor, eps: float) -> Tensor:
    """What an attention kernel gives, (B, S, H, d), for a whole sequence (B, H, S, d) under a policy (B, S)."""
    batch, heads, length, _ = call.query.shape
    key, value = (t.repeat_interleave(heads // t.shape[1], 1) for t in (call.key, value))
    scores = call.query @ key.transpose(-1, -2) * call.scaling  # (B, H, S, S)
    rows = torch.arange(length, device=scores.device).expand(batch, -1)
    visible = mask_rows(call, rows)
    if visible is not None:
        hidden = torch.finfo(scores.dtype).min
        scores = scores + visible if visible.is_floating_point() else scores.masked_fill(~visible, hidden)
    with torch.autocast(scores.device.type, enabled=False):
        weights = policy_softmax(scores, policy, eps).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous()
