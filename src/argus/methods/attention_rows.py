"""Chosen rows of an attention map, without the map.

    A[r, :] = softmax(q_r K^T * scaling + mask[r, :])

`watch` puts a listener on an attention module: it sees queries and keys exactly as the kernel does (after norms, rotary
embedding and the KV cache), for every family that dispatches through transformers' attention interface. While the
module runs, its config names an implementation that tells the listeners and then calls the real one, so outputs do
not change by a bit. From R rows the cost is R * K products instead of Q * K, and flash kernels stay in use.
`replace_kernel` uses the same way to let another kernel compute a module's attention.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from argus.core.errors import UnsupportedError
from argus.model.anatomy.base import Listener
from argus.model.encoders.vit import AttentionBlock

LISTENING = "argus_listening"  # the name under which the listening implementation is registered
BLOCK = 128  # query rows per matrix product when many rows are averaged


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What one call of an attention kernel was given.

    Args:
        query: (B, H, Q, d), rotated.
        key: (B, H_kv, K, d), rotated, those of the KV cache first.
        mask: None, (B, K) bool or integer with 1 = visible, (B, 1 | H, Q, K) bool with True = visible, or additive
            float.
        scaling: factor on the products.
        causal: whether a query sees only keys up to its own, where the mask does not say so itself.
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scaling: float
    causal: bool


Kernel = Callable[[AttentionCall, Tensor], Tensor]  # (call, value (B, H_kv, K, d)) -> (B, Q, H, d)


@dataclass(slots=True)
class _Watched:
    listeners: list[Callable[[AttentionCall], None]] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    real: str | None = None
    hooks: list[Any] = field(default_factory=list)


_watched: WeakKeyDictionary[nn.Module, _Watched] = WeakKeyDictionary()


class Watch:
    """A listener's place on an attention module, until `remove`."""

    def __init__(self, attention: nn.Module, listener: Callable[[AttentionCall], None]) -> None:
        self.attention, self.listener = attention, listener
        _state(attention).listeners.append(listener)

    def remove(self) -> None:
        """Takes the listener away; the last one takes the hooks with it."""
        _watched[self.attention].listeners.remove(self.listener)
        _cleared(self.attention)


class Replacement:
    """A kernel in the place of an attention module's own, until `remove`."""

    def __init__(self, attention: nn.Module, kernel: Kernel) -> None:
        self.attention, self.kernel = attention, kernel
        _state(attention).kernels.append(kernel)

    def remove(self) -> None:
        """Gives the module the kernel back that it had before."""
        _watched[self.attention].kernels.remove(self.kernel)
        _cleared(self.attention)


def replace_kernel(attention: nn.Module, kernel: Kernel) -> Replacement:
    """Lets `kernel` compute what `attention`'s kernel would; of several, the last one does."""
    return Replacement(attention, kernel)


def _state(attention: nn.Module) -> _Watched:
    state = _watched.setdefault(attention, _Watched())
    if not state.hooks:
        state.hooks = [
            attention.register_forward_pre_hook(_enter),
            attention.register_forward_hook(_leave, always_call=True),
        ]
    return state


def _cleared(attention: nn.Module) -> None:
    state = _watched[attention]
    if not state.listeners and not state.kernels:
        for hook in state.hooks:
            hook.remove()
        del _watched[attention]


def watch(attention: nn.Module, listener: Callable[[AttentionCall], None]) -> Watch:
    """Calls `listener` with an `AttentionCall` whenever `attention` runs its kernel, before the kernel."""
    return Watch(attention, listener)


def watch_block(block: AttentionBlock, listener: Callable[[AttentionCall], None]) -> Listener:
    """The same for a block of Argus's own ViT, which has no kernel: queries and keys are made once more from its input."""

    def heard(block: AttentionBlock, args: tuple[Tensor, ...]) -> None:
        query, key, _ = block._heads(args[0])
        listener(AttentionCall(query, key, None, query.shape[-1] ** -0.5, causal=False))

    return block.register_forward_pre_hook(heard)


def _enter(attention: nn.Module, args: Any) -> None:
    config: Any = attention.config
    _watched[attention].real = config._attn_implementation
    config._attn_implementation = LISTENING


def _leave(attention: nn.Module, args: Any, output: Any) -> None:
    config: Any = attention.config
    config._attn_implementation = _watched[attention].real


def _listening(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    state = _watched[module]
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    scaling = kwargs.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = AttentionCall(query, key, attention_mask, scaling, causal)
    for listener in state.listeners:
        listener(call)
    if state.kernels:
        return state.kernels[-1](call, value), None
    if state.real in (None, "eager"):
        kernel = sys.modules[type(module).__module__].eager_attention_forward
    else:
        kernel = ALL_ATTENTION_FUNCTIONS[state.real]
    return kernel(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(LISTENING, _listening)


def single_head(call: AttentionCall) -> AttentionCall:
    """The call as if the heads were one of their joint width C, so that logits are q k / sqrt(C)."""
    if call.query.shape[1] != call.key.shape[1]:
        raise UnsupportedError("heads that share keys cannot be read as one head.")
    query, key = (x.transpose(1, 2).flatten(2)[:, None] for x in (call.query, call.key))  # (B, 1, S, C)
    return replace(call, query=query, key=key, scaling=query.shape[-1] ** -0.5)


def attention_rows(call: AttentionCall, rows: Tensor) -> Tensor:
    """Attention of chosen query rows on all keys.

    Args:
        rows: (B, R) indices of query rows.

    Returns:
        (B, H, R, K) in float32.
    """
    batch, heads, _, width = call.query.shape
    groups = call.key.shape[1]
    index = rows[:, None, :, None].expand(-1, heads, -1, width)
    query = call.query.gather(2, index).view(batch, groups, -1, width)  # (B, H_kv, H / H_kv * R, d)
    logits = (query @ call.key.transpose(-1, -2)).view(batch, heads, rows.shape[1], -1) * call.scaling  # (B, H, R, K)
    visible = mask_rows(call, rows)
    if visible is not None:
        logits = logits + visible if visible.is_floating_point() else logits.masked_fill(~visible, torch.finfo(logits.dtype).min)
    return logits.softmax(-1, dtype=torch.float32)


def attention_row_blocks(call: AttentionCall) -> Iterator[tuple[slice, Tensor]]:
    """All rows, a block at a time: (rows, (B, H, R, K) float32), so that memory stays linear in the length."""
    batch, _, length, _ = call.query.shape
    for start in range(0, length, BLOCK):
        rows = torch.arange(start, min(start + BLOCK, length), device=call.query.device)
        yield slice(start, start + len(rows)), attention_rows(call, rows.expand(batch, -1))


def mean_attention(call: AttentionCall, weights: Tensor) -> Tensor:
    """Weighted mean over query rows of the attention on each key.

    Args:
        weights: (B, Q), not negative; rows of weight 0 do not count.

    Returns:
        (B, H, K) in float32; zeros for an item without weights.
    """
    total = sum(
        torch.einsum("bhrk,br->bhk", block, weights[:, rows].to(block.dtype)) for rows, block in attention_row_blocks(call)
    )
    return total / weights.sum(-1).clamp(min=1e-12)[:, None, None]


def mask_rows(call: AttentionCall, rows: Tensor) -> Tensor | None:
    """The mask's part for chosen rows, broadcastable to (B, H, R, K): additive float or bool with True = visible."""
    mask, (queries, keys) = call.mask, (call.query.shape[2], call.key.shape[2])
    if mask is not None and mask.ndim == 4:
        mask = mask.expand(len(rows), -1, -1, -1)
        return mask.gather(2, rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
    visible = None
    if call.causal and queries > 1:
        last = rows + keys - queries
        visible = (torch.arange(keys, device=rows.device) <= last[..., None])[:, None]  # (B, 1, R, K)
    if mask is not None:
        padding = mask.bool()[:, None, None, :]
        visible = padding if visible is None else visible & padding
    return visible
