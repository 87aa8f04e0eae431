"""Attention in which visual tokens look at their neighbours in the picture only, and some heads at no picture at all.

    text rows:    softmax over all keys; in cut heads only over text keys (or with visual probabilities struck out afterwards)
    visual rows:  kept heads: softmax over text in front and visual tokens at most (w - 1) / 2 rows and columns away, themselves
                  included, in the same crop; cut heads: zero

What is masked is not computed: of Q x K products per head, text rows take T x K (cut heads T x T), visual rows V x (T + w^2),
kept heads only. Shapes: B items, H query heads on H_kv key heads, T text and V visual rows at most, K keys of width d.
"""

from __future__ import annotations

import torch
from torch import Tensor

from argus.methods.attention_rows import AttentionCall, mask_rows
from argus.methods.layer_run import Run
from argus.model.anatomy.base import VisualTokens


def neighbours(tokens: VisualTokens, window: int, causal: bool) -> Tensor:
    """The tokens that each of T visual tokens sees: (T, window^2) their numbers, -1 for none.

    Args:
        window: odd width of the square around a token, cut at the borders of its crop.
        causal: only tokens up to itself in raster order.
    """
    device = tokens.cell.device
    reach = (window - 1) // 2
    offsets = torch.arange(-reach, reach + 1, device=device)
    down, right = (o.flatten() for o in torch.meshgrid(offsets, offsets, indexing="ij"))  # (w * w,)
    high = torch.tensor([c.grid[0] for c in tokens.crops], device=device)[tokens.crop][:, None]  # (T, 1)
    wide = torch.tensor([c.grid[1] for c in tokens.crops], device=device)[tokens.crop][:, None]
    row, column = tokens.cell[:, None] // wide + down, tokens.cell[:, None] % wide + right  # (T, w * w)
    inside = (row >= 0) & (row < high) & (column >= 0) & (column < wide)
    most = max(rows * columns for rows, columns in (c.grid for c in tokens.crops))
    table = torch.full((len(tokens.crops), most), -1, device=device)  # a cell may be no token: padding that was cut away
    table[tokens.crop, tokens.cell] = torch.arange(len(tokens), device=device)
    found = table[tokens.crop[:, None], (row * wide + column).clamp(0, most - 1)].masked_fill(~inside, -1)
    return found.masked_fill(found > torch.arange(len(tokens), device=device)[:, None], -1) if causal else found


def visual_attention(
    call: AttentionCall, value: Tensor, heads: Tensor, run: Run, window: int | None, causal: bool, after: bool
) -> Tensor:
    """The attention of a layer.

    Args:
        call, value: what the layer's kernel was given.
        heads: (H,) bool, heads that see pictures.
        run: the forward pass, with the layout of this layer's keys.
        window: width of the neighbourhood; None for all visual tokens.
        causal: visual tokens see only neighbours in front of them.
        after: cut heads lose visual probabilities after the softmax instead of visual keys before it.

    Returns:
        (B, Q, H, d).
    """
    batch, many, queries, _ = call.query.shape
    key, value = (x.repeat_interleave(many // x.shape[1], dim=1) for x in (call.key, value))  # (B, H, K, d)
    layout = run.layout
    seen = None if layout is None or layout.visual is None or not bool(layout.visual.any()) else layout.visual  # (B, K)
    if seen is None:
        return _dense(call, call.query, key, value, _all_rows(call)).transpose(1, 2)
    mine = seen[:, seen.shape[1] - queries :]  # (B, Q)
    kept, cut = heads.nonzero().flatten(), (~heads).nonzero().flatten()
    out = torch.zeros_like(call.query)  # (B, H, Q, d)
    text = _first(~mine)  # (B, T); items with fewer are filled up with visual rows, which are written anew below
    if text.shape[1]:
        asking = _take(call.query, text)
        if after:
            struck = value * ~(seen[:, None, :, None] & ~heads[:, None, None])
            answer = _dense(call, asking, key, struck, text)
        else:
            answer = torch.zeros_like(asking)
            answer[:, kept] = _dense(call, asking[:, kept], key[:, kept], value[:, kept], text, kept)
            if len(cut):
                words = _first(~seen)  # (B, T_k) text keys
                real = (~seen).gather(1, words)
                own = _dense(call, asking[:, cut], _take(key[:, cut], words), _take(value[:, cut], words), text, cut, words, real)
                answer[:, cut] = own
        out = out.scatter(2, text[:, None, :, None].expand_as(answer), answer)
    if bool(mine.any()) and run.tokens is not None:
        pictures = _first(mine)  # (B, V)
        asking = _take(call.query, pictures)[:, kept]
        if window is None:
            answer = _dense(call, asking, key[:, kept], value[:, kept], pictures, kept)
        else:
            near = _near(run, run.tokens, seen, pictures, window, causal)
            answer = _nearby(call, asking, key[:, kept], value[:, kept], seen, pictures, near, kept)
        whole = answer.new_zeros(batch, many, pictures.shape[1], answer.shape[-1])
        whole[:, kept] = answer
        place = pictures.masked_fill(~mine.gather(1, pictures), queries)  # surplus rows go to an extra place behind the end
        out = torch.cat([out, out.new_zeros(batch, many, 1, out.shape[-1])], dim=2)
        out = out.scatter(2, place[:, None, :, None].expand_as(whole), whole)[:, :, :queries]
    return out.transpose(1, 2).contiguous()


def _all_rows(call: AttentionCall) -> Tensor:
    batch, _, queries, _ = call.query.shape
    return torch.arange(queries, device=call.query.device).expand(batch, -1)


def _first(wanted: Tensor) -> Tensor:
    """(B, N) bool -> (B, M) indices of those wanted, ascending, then others, up to the most that any item wants."""
    return (~wanted).int().argsort(dim=1, stable=True)[:, : int(wanted.sum(1).max())]


def _take(x: Tensor, index: Tensor) -> Tensor:
    """(B, H, N, d) at (B, M) -> (B, H, M, d)."""
    return x.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def _added(call: AttentionCall, rows: Tensor, heads: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The mask's rows as an additive (B, 1 | H, R, K)."""
    mask = mask_rows(call, rows)
    if mask is None:
        return None
    if heads is not None and mask.shape[1] > 1:
        mask = mask[:, heads]
    if mask.is_floating_point():
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)


def _dense(
    call: AttentionCall,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    heads: Tensor | None = None,
    columns: Tensor | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """Attention (B, H', R, d) of the chosen rows (B, R) on all keys, or on those at `columns` (B, C) that are `real`."""
    logits = query @ key.transpose(-1, -2) * call.scaling
    added = _added(call, rows, heads, logits.dtype)
    if added is not None:
        if columns is not None:
            added = added.gather(3, columns[:, None, None].expand(-1, added.shape[1], added.shape[2], -1))
        logits = logits + added
    if real is not None:
        logits = logits.masked_fill(~real[:, None, None], torch.finfo(logits.dtype).min)
    return logits.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def _near(run: Run, tokens: VisualTokens, seen: Tensor, pictures: Tensor, window: int, causal: bool) -> Tensor:
    """(B, V, window^2): which keys the visual rows see nearby, -1 for none."""
    known = ("near", window, causal, id(run.layout))  # layers that hold the same positions share it
    if known not in run.memo:
        batch, length = run.real.shape
        width = seen.shape[1]
        columns = torch.arange(length, device=seen.device).expand(batch, -1) if run.cut is None else run.cut.columns
        past = width - columns.shape[1]
        places = torch.full((batch, length + 1), -1, device=seen.device)  # column of the chunk -> key
        index = torch.arange(past, width, device=seen.device).expand(batch, -1)
        places = places.scatter(1, columns % (length + 1), index)[:, :length]
        key = places[tokens.item, tokens.column]  # (T,), -1 where it is gone
        found = neighbours(tokens, window, causal)
        near = key[found.clamp(min=0)].masked_fill(found < 0, -1)  # (T, w * w) keys
        table = torch.full((batch, width, near.shape[1]), -1, device=seen.device)
        table[tokens.item[key >= 0], key[key >= 0]] = near[key >= 0]
        rows = (pictures + past)[..., None].expand(-1, -1, near.shape[1])
        run.memo[known] = table.gather(1, rows), run.layout
    return run.memo[known][0]


def _nearby(
    call: AttentionCall, query: Tensor, key: Tensor, value: Tensor, seen: Tensor, rows: Tensor, near: Tensor, heads: Tensor
) -> Tensor:
    """Attention (B, H', V, d) of visual rows on text that they see and on the keys `near` (B, V, n)."""
    batch, many, length, width = query.shape
    words = _first(~seen)  # (B, T_k)
    far = query @ _take(key, words).transpose(-1, -2) * call.scaling  # (B, H', V, T_k)
    added = _added(call, rows, heads, far.dtype)
    if added is not None:
        far = far + added.gather(3, words[:, None, None].expand(-1, added.shape[1], length, -1))
    least = torch.finfo(far.dtype).min
    far = far.masked_fill(~(~seen).gather(1, words)[:, None, None], least)
    index = near.clamp(min=0).flatten(1)  # (B, V * n)
    keys = _take(key, index).view(batch, many, length, near.shape[2], width)  # (B, H', V, n, d)
    close = (keys @ query[..., None])[..., 0] * call.scaling
    close = close.masked_fill(near[:, None] < 0, least)
    weights = torch.cat([far, close], dim=-1).softmax(-1, dtype=torch.float32).to(value.dtype)
    on_text, on_near = weights.split([far.shape[-1], close.shape[-1]], dim=-1)
    values = _take(value, index).view(batch, many, length, near.shape[2], width)
    return on_text @ _take(value, words) + (on_near[..., None, :] @ values)[..., 0, :]
