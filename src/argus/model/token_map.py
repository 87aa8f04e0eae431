"""The token-type map: what every position of a sequence is.

Experts, partial LoRA, dual attention, reduction and decoding methods all need to know which positions are text and which are
visual, and of which picture, tile and grid cell. The map comes from where the placeholders are, never from fixed offsets, and
travels with the sequence through prefill, chunked prefill and decoding.

Shapes: every field (B, S); -1 where a field has no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

TEXT, VISUAL, SPECIAL, PAD = 0, 1, 2, 3
PROMPT, ANSWER = 0, 1


@dataclass(slots=True)
class TokenMap:
    """What each position is.

    Args:
        kind: TEXT, VISUAL, SPECIAL (control tokens) or PAD.
        image: index of the picture within its sequence.
        tile: index of the tile within its picture.
        row, column: cell of the tile's grid of visual tokens.
        role: PROMPT, or ANSWER for tokens that were generated or are to be learned.
    """

    kind: Tensor
    image: Tensor
    tile: Tensor
    row: Tensor
    column: Tensor
    role: Tensor

    @property
    def visual(self) -> Tensor:
        """Where visual tokens are: bool (B, S)."""
        return self.kind == VISUAL

    def __len__(self) -> int:
        return self.kind.shape[1]

    def join(self, more: TokenMap) -> TokenMap:
        """The map of a sequence that goes on with `more`."""
        return TokenMap(*(torch.cat([getattr(self, f.name), getattr(more, f.name)], dim=1) for f in fields(self)))

    def slice(self, start: int, stop: int | None = None) -> TokenMap:
        """Positions start..stop, for a chunk of the prefill."""
        return TokenMap(*(getattr(self, f.name)[:, start:stop] for f in fields(self)))

    def select(self, batch: Tensor) -> TokenMap:
        """Rows `batch` of the map: beams that were reordered, sequences that were repeated."""
        return TokenMap(*(getattr(self, f.name)[batch] for f in fields(self)))

    def extend(self, count: int, role: int = ANSWER) -> TokenMap:
        """The map with `count` more text positions."""
        return self.join(plain(self.kind.new_empty(self.kind.shape[0], count), role))


def plain(like: Tensor, role: int = PROMPT) -> TokenMap:
    """A map of text alone.

    Args:
        like: (B, S) integers, for shape, type and device.
    """
    nothing = torch.full_like(like, -1)
    return TokenMap(torch.full_like(like, TEXT), nothing, nothing, nothing, nothing, torch.full_like(like, role))


def chunk_map(visual: Tensor, grid: tuple[int, int], before: TokenMap | None = None) -> TokenMap:
    """The map of a part of a sequence whose pictures are one tile of one grid each.

    A part may begin or end inside a picture: chunked prefill cuts anywhere, and each row of a batch is cut elsewhere.

    Args:
        visual: (B, S) bool, where the part's visual tokens are.
        grid: rows and columns of visual tokens of every tile.
        before: the map of what precedes the part.
    """
    chunk = plain(visual.long())
    seen = before.visual.sum(1, keepdim=True) if before is not None else 0  # (B, 1)
    number = visual.cumsum(1) - 1 + seen  # (B, S) of a visual token among those of its sequence
    inside = number % (grid[0] * grid[1])
    chunk.kind = chunk.kind.masked_fill(visual, VISUAL)
    chunk.image = (number // (grid[0] * grid[1])).masked_fill(~visual, -1)
    chunk.tile = chunk.tile.masked_fill(visual, 0)
    chunk.row = (inside // grid[1]).masked_fill(~visual, -1)
    chunk.column = (inside % grid[1]).masked_fill(~visual, -1)
    return chunk


def token_map(
    input_ids: Tensor,
    image_token: int,
    grids: Sequence[tuple[int, int]] | tuple[int, int],
    *,
    attention_mask: Tensor | None = None,
    special: Sequence[int] = (),
    labels: Tensor | None = None,
    tiles: Sequence[int] | None = None,
) -> TokenMap:
    """Build the map from ids and grids.

    Args:
        input_ids: (B, S) with one placeholder per visual token.
        image_token: id of the placeholder.
        grids: rows and columns of visual tokens of each tile, in reading order over the batch; one pair if all are equal.
        attention_mask: (B, S), 0 on padding.
        special: ids of control tokens.
        labels: (B, S), -100 where nothing is learned; the others are the answer.
        tiles: number of tiles of each picture, in reading order over the batch; one each when not given.

    Raises:
        ValueError: the grids do not add up to the placeholders.
    """
    batch, length = input_ids.shape
    visual = input_ids == image_token
    count = int(visual.sum())
    nothing = torch.full_like(input_ids, -1)
    image, tile, row, column = (nothing.clone() for _ in range(4))
    if count:
        if isinstance(grids, tuple):
            area = grids[0] * grids[1]
            if count % area:
                raise ValueError(f"{count} visual tokens are no multiple of a grid of {grids[0]} x {grids[1]}")
            grids = [grids] * (count // area)
        areas = torch.tensor([r * c for r, c in grids])
        if int(areas.sum()) != count:
            raise ValueError(f"grids of {int(areas.sum())} visual tokens for {count} placeholders")
        # Number of each visual token within its tile, and of its tile within the batch, in reading order.
        which = torch.repeat_interleave(torch.arange(len(areas)), areas)
        inside = torch.arange(count) - torch.repeat_interleave(areas.cumsum(0) - areas, areas)
        columns = torch.tensor([c for _, c in grids])[which]
        per_picture = torch.tensor(list(tiles) if tiles is not None else [1] * len(areas))
        picture_of_tile = torch.repeat_interleave(torch.arange(len(per_picture)), per_picture)
        tile_in_picture = torch.arange(len(areas)) - (per_picture.cumsum(0) - per_picture)[picture_of_tile]
        picture = picture_of_tile[which]
        sequence = visual.nonzero()[:, 0].cpu()
        # Pictures are numbered from 0 in each sequence.
        first = torch.full((batch,), count, dtype=torch.long).scatter_reduce(0, sequence, picture, "amin")
        device = input_ids.device
        image[visual] = (picture - first[sequence]).to(device)
        tile[visual] = tile_in_picture[which].to(device)
        row[visual] = (inside // columns).to(device)
        column[visual] = (inside % columns).to(device)
    kind = torch.full_like(input_ids, TEXT)
    if special:
        kind[torch.isin(input_ids, torch.tensor(list(special), device=input_ids.device))] = SPECIAL
    kind[visual] = VISUAL
    if attention_mask is not None and attention_mask.shape[-1] >= length and attention_mask.ndim == 2:
        kind[attention_mask[:, -length:] == 0] = PAD
    role = torch.full_like(input_ids, PROMPT)
    if labels is not None:
        role[labels != -100] = ANSWER
    return TokenMap(kind, image, tile, row, column, role)
