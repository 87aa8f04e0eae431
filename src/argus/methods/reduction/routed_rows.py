"""Linear layers of a decoder block that compute only a part for visual tokens (YOPO, arXiv 2410.06169).

Rows of a batch are routed: text rows go through the module as it is, visual rows through slices of its weights.

    FFN          the first k neurons:  W_down[:, :k] (act(W_gate[:k] x) * W_up[:k] x)
    projections  the outputs (q, k, v) or inputs (o) of kept heads; those of other heads are zero

So what is cut is not computed. Where an adapter is wrapped around a layer its slices are not its own, and it is computed whole.
Shapes: x (B, L, D), of which N rows are visual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from argus.methods.layer_run import Run
from argus.model.anatomy.base import Listener


def routed_ffn(ffn: Any, share: float, run: Callable[[], Run | None]) -> list[Listener]:
    """Visual rows use the first neurons only."""
    k = int(ffn.gate_proj.out_features * share)

    def short(ffn: Any, rows: Tensor) -> Tensor:
        inner = ffn.act_fn(_neurons(ffn.gate_proj, rows, k)) * _neurons(ffn.up_proj, rows, k)
        if type(ffn.down_proj) is nn.Linear:
            return F.linear(inner, ffn.down_proj.weight[:, :k], ffn.down_proj.bias)
        return ffn.down_proj(F.pad(inner, (0, ffn.down_proj.in_features - k)))

    return _Routed(short, run).on(ffn)


def routed_projections(attention: Any, heads: Tensor, all_keys: bool, run: Callable[[], Run | None]) -> list[Listener]:
    """Visual rows are projected for kept heads (H,) only; a key head is kept if a query head of its group is.

    Projections with an adapter around them are computed whole, which gives the same.
    """
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    if bool(heads.all()) or any(type(getattr(attention, name, None)) is not nn.Linear for name in names):
        return []
    width = attention.q_proj.out_features // len(heads)
    groups = heads.view(attention.k_proj.out_features // width, -1).any(1)  # (H_kv,)
    asked = heads.repeat_interleave(width).nonzero().flatten()
    looked = groups.repeat_interleave(width).nonzero().flatten()

    def outputs(wanted: Tensor) -> Callable[[Any, Tensor], Tensor]:
        def short(linear: nn.Linear, rows: Tensor) -> Tensor:
            index = wanted.to(rows.device)
            some = F.linear(rows, linear.weight[index], None if linear.bias is None else linear.bias[index])
            return some.new_zeros(len(rows), linear.out_features).index_copy(1, index, some)

        return short

    def inputs(linear: nn.Linear, rows: Tensor) -> Tensor:
        index = asked.to(rows.device)
        return F.linear(rows[:, index], linear.weight[:, index], linear.bias)

    hooks = _Routed(outputs(asked), run).on(attention.q_proj) + _Routed(outputs(looked), run).on(attention.v_proj)
    if not all_keys:
        hooks += _Routed(outputs(looked), run).on(attention.k_proj)
    return hooks + _Routed(inputs, run).on(attention.o_proj)


class _Routed:
    """Sends text rows through a module, and visual rows through a part of it.

    Args:
        short: (module, visual rows (N, D)) -> what the module would give for them, (N, D').
        run: () -> the forward pass that is running.
    """

    def __init__(self, short: Callable[[Any, Tensor], Tensor], run: Callable[[], Run | None]) -> None:
        self.short, self.run = short, run
        self.whole: Tensor | None = None  # (B, L, D) the input, while the module runs on the text rows
        self.visual = torch.empty(0)

    def on(self, module: nn.Module) -> list[Listener]:
        """Puts itself on a module."""
        return [module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave)]

    def _enter(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        run, (x,) = self.run(), args
        self.whole = None
        if run is None or run.layout is None or run.layout.visual is None:
            return None
        visual = run.layout.visual[:, run.layout.visual.shape[1] - x.shape[1] :]  # (B, L)
        if not bool(visual.any()):
            return None
        self.whole, self.visual = x, visual
        return (x[~visual][None],)  # (1, text rows, D)

    def _leave(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        x, self.whole = self.whole, None
        if x is None:
            return None
        out = output.new_empty(*x.shape[:2], output.shape[-1])  # (B, L, D')
        out[self.visual], out[~self.visual] = self.short(module, x[self.visual]), output[0]
        return out


def _neurons(linear: nn.Linear, x: Tensor, count: int) -> Tensor:
    """The first outputs of a linear layer; one with an adapter around it is computed whole, then cut."""
    if type(linear) is not nn.Linear:
        return linear(x)[..., :count]
    return F.linear(x, linear.weight[:count], None if linear.bias is None else linear.bias[:count])
