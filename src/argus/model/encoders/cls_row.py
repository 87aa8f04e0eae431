"""The attention row of the CLS query, without an attention map.

    a = softmax(q_cls K^T / sqrt(d)) over all P + N keys, of which the N patches' are kept

q_cls and K come from a block's own query and key projections, applied to the input of its attention. Shapes: input (B, P + N, C),
the P prefix tokens with the CLS first -> (B, heads, N). The row is no longer a distribution once the prefix is cut.
"""

from __future__ import annotations

from torch import Tensor, nn

from argus.core.errors import ModelError


def cls_row(attention: nn.Module, x: Tensor, heads: int, prefix: int) -> Tensor:
    """(B, heads, N) from a block's normalised input x (B, P + N, C)."""
    q_proj, k_proj = _projections(attention)
    q_norm, k_norm = (getattr(attention, name, nn.Identity()) for name in ("q_norm", "k_norm"))  # over all heads
    q = q_norm(q_proj(x[:, :1])).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, h, 1, d)
    k = k_norm(k_proj(x)).unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, h, P + N, d)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.float().softmax(-1)[:, :, 0, prefix:].to(x.dtype)


def self_attention(block: nn.Module) -> nn.Module:
    """The innermost module of a block that owns the query and key projections."""
    for module in block.modules():
        if _has_projections(module):
            return module
    raise ModelError(f"no query and key projection in {type(block).__name__}")


def _has_projections(module: nn.Module) -> bool:
    names = {name for name, _ in module.named_children()}
    return {"q_proj", "k_proj"} <= names or {"query", "key"} <= names


def _projections(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    if hasattr(module, "q_proj"):
        return module.q_proj, module.k_proj  # type: ignore[return-value]
    return module.query, module.key  # type: ignore[return-value]
