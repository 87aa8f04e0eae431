"""The slow, plain way: one item, no cache, the sequence physically cut before a decoder layer, positions recomputed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from argus.model.anatomy import anatomy


def columns_gone(attachment: Any, inputs: dict[str, Tensor], model: Any) -> dict[int, set[int]]:
    """layer -> columns of item 0 that the attachment dropped in front of it, breaks of lines without tokens among them."""
    parts = anatomy(model)
    tokens = parts.visual_tokens(inputs)
    gone: dict[int, set[int]] = {}
    number = {(c.item, c.image, c.tile): i for i, c in enumerate(tokens.crops)}
    for kept in attachment.kept:
        own = tokens.crop == number[kept.item, kept.image, kept.tile]
        all_cells = dict(zip(tokens.cell[own].tolist(), tokens.column[own].tolist(), strict=True))
        stay = set(kept.indices.tolist())
        gone.setdefault(kept.layer, set()).update(c for cell, c in all_cells.items() if cell not in stay)
    for columns in gone.values():
        ends = [] if tokens.breaks is None else tokens.breaks[:, 1].tolist()
        left = (
            [line for line, c in zip(tokens.line.tolist(), tokens.column.tolist(), strict=True) if c not in columns]
            if ends
            else []
        )
        columns.update(column for line, column in enumerate(ends) if line not in left)
    return gone


@torch.no_grad()
def logits_with(
    model: Any,
    inputs: dict[str, Tensor],
    gone: dict[int, set[int]],
    more: list[int] = (),  # type: ignore[assignment]
    consecutive: Collection[int] = (),
    unseen: dict[int, set[int]] | None = None,
) -> tuple[Tensor, list[int]]:
    """Logits of one unpadded prompt followed by the tokens `more`, with columns dropped in front of layers.

    Survivors are renumbered where the layer is in `consecutive`. Columns that are `unseen` from a layer on stay, and only they
    themselves see them.

    Returns:
        ((S', V) logits of the positions that reach the end, their columns).
    """
    parts = anatomy(model)
    ids = torch.cat([inputs["input_ids"], torch.tensor([list(more)], dtype=torch.long)], dim=1)
    grids = {k: v for k, v in inputs.items() if k.endswith("grid_thw")}
    pictures = {
        k: v for k, v in inputs.items() if k.startswith(("pixel", "image_grid", "image_sizes", "batch_num", "video_grid"))
    }
    length = ids.shape[1]
    embeddings = parts.root.get_input_embeddings()(ids)
    features = parts.root.get_image_features(**pictures)
    features = getattr(features, "pooler_output", features)
    visual = parts.visual_mask(inputs["input_ids"])  # a generated token may be the placeholder's id by chance
    visual = torch.nn.functional.pad(visual, (0, len(more)))
    embeddings = embeddings.masked_scatter(visual[..., None], torch.cat(list(features)).to(embeddings.dtype))
    if parts.mrope:
        positions, _ = parts.root.get_rope_index(ids, mm_token_type_ids=visual.int(), **grids)
    else:
        positions = torch.arange(length)[None]
    columns = torch.arange(length)
    hidden = embeddings
    for index, layer in enumerate(parts.layers):
        if index in gone:
            stay = torch.tensor([c not in gone[index] for c in columns.tolist()], dtype=torch.bool)
            hidden, columns, positions = hidden[:, stay], columns[stay], positions[..., stay]
            if index in consecutive and not parts.mrope:
                positions = torch.arange(len(columns))[None]
        size = len(columns)
        mask = torch.full((1, 1, size, size), torch.finfo(hidden.dtype).min, dtype=hidden.dtype).triu(1)
        hidden_from_others = [c for start, some in (unseen or {}).items() if index >= start for c in some]
        for place in (columns.tolist().index(c) for c in hidden_from_others):
            mask[..., place + 1 :, place] = torch.finfo(hidden.dtype).min
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_ids=None if parts.mrope else positions,
            position_embeddings=parts.rotary(hidden, positions),
        )
    return model.lm_head(parts.language_model.norm(hidden))[0], columns.tolist()
