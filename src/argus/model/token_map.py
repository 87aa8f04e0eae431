"""The token-type map: what every position of a sequence is.

Experts, partial LoRA, dual attention, reduction and decoding methods all need to know which positions are text and which are
visual, and of which picture, tile and grid cell. The map comes from where the placeholders are, never from fixed offsets, and
travels with the sequence through prefill, chunked prefill and decoding.

Shapes: every field (B, S); -1 where a field has no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from argus.model.views.base import OBJECT as BOX
from argus.model.views.base import TASK as FIRST_TASK
from argus.model.views.base import Arrangement, places

TEXT, VISUAL, SPECIAL, PAD, SEPARATOR, OBJECT, TASK = 0, 1, 2, 3, 4, 5, 6
PROMPT, ANSWER = 0, 1


@dataclass(slots=True)
class TokenMap:
    """What each position is.

    Args:
        kind: TEXT, VISUAL, SPECIAL (control tokens), PAD, SEPARATOR (learned vectors between a picture's visual tokens), OBJECT
            (tokens of boxes behind them), or TASK (learned tokens behind a picture).
        image: index of the picture within its sequence; also of its separators, of the text tags that announce its tiles, and,
            where tiles stay out of the sequence, of what is written in front of them.
        tile: index of the tile within its picture.
        row, column: cell of the tile's grid of visual tokens; in the column of a picture's task tokens their number.
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

    @property
    def placeholders(self) -> Tensor:
        """Where visual tokens, learned separators and tokens of boxes and tasks are: bool (B, S)."""
        return (self.kind == VISUAL) | (self.kind >= SEPARATOR)

    @property
    def tags(self) -> Tensor:
        """Where text announces a tile: bool (B, S)."""
        return (self.kind == TEXT) & (self.tile >= 0)

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

    def gather(self, columns: Tensor, real: Tensor) -> TokenMap:
        """Chosen columns (B, L) of each row; those that are not real become padding."""
        chosen = TokenMap(*(getattr(self, f.name).gather(1, columns) for f in fields(self)))
        chosen.kind = chosen.kind.masked_fill(~real, PAD)
        return chosen

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


@dataclass(slots=True)
class Filling:
    """What fills the placeholders of each sequence, in order.

    Args:
        cells: (B, N, 5) kind, image, tile, row, column; rows of a batch that have fewer end in anything.
        before: (B, 1) placeholders of each sequence in front of the first one.
    """

    cells: Tensor
    before: Tensor

    def select(self, batch: Tensor) -> Filling:
        """Rows `batch`."""
        return Filling(self.cells[batch], self.before[batch])


def filling(pictures: Sequence[Arrangement], counts: Sequence[int], before: TokenMap | None = None) -> Filling:
    """Give pictures to the sequences that show them.

    Args:
        pictures: in reading order over the batch.
        counts: (B,) placeholders of each sequence.
        before: the map of what precedes them.

    Raises:
        ValueError: a sequence whose placeholders are no whole number of the next pictures.
    """
    rows, left = [], list(pictures)
    first = (before.image.amax(1) + 1).tolist() if before is not None else [0] * len(counts)
    for count, image in zip(counts, first, strict=True):
        cells = [np.empty((0, 5), dtype=np.int64)]
        have = 0
        while have < count and left:
            cells.append(_cells(left.pop(0), image + len(cells) - 1))
            have += len(cells[-1])
        if have != count:
            raise ValueError(f"a prompt has {count} placeholders, its pictures fill {have}")
        rows.append(np.concatenate(cells))
    table = torch.full((len(rows), max((len(r) for r in rows), default=0), 5), -1)
    for index, row in enumerate(rows):
        table[index, : len(row)] = torch.from_numpy(row)
    seen = before.placeholders.sum(1, keepdim=True).cpu() if before is not None else torch.zeros(len(rows), 1, dtype=torch.long)
    return Filling(table, seen)


def _cells(picture: Arrangement, image: int) -> np.ndarray:
    """(n, 5) kind, image, tile, row, column of a picture's positions."""
    source = places(picture.layout)
    visual, columns = source >= 0, picture.grid[1]
    tile, cell = np.divmod(source, picture.grid[0] * columns)
    inner = np.where(visual, (tile, cell // columns, cell % columns), -1)  # (3, n)
    task = source <= FIRST_TASK
    inner[2, task] = FIRST_TASK - source[task]
    kind = np.where(visual, VISUAL, np.select([source == BOX, task], [OBJECT, TASK], SEPARATOR))
    return np.stack([kind, np.full_like(source, image), *inner], axis=1)


def mark_tags(known: TokenMap, length: int) -> TokenMap:
    """The map with the `length` positions in front of every tile marked as its tag."""
    starts = known.visual & (known.row == 0) & (known.column == 0)
    image, tile = known.image.clone(), known.tile.clone()
    for distance in range(1, length + 1):
        ahead = starts[:, distance:]  # (B, S - distance)
        image[:, :-distance] = torch.where(ahead, known.image[:, distance:], image[:, :-distance])
        tile[:, :-distance] = torch.where(ahead, known.tile[:, distance:], tile[:, :-distance])
    return TokenMap(known.kind, image, tile, known.row, known.column, known.role)


def chunk_map(visual: Tensor, pictures: tuple[int, int] | Filling, before: TokenMap | None = None) -> TokenMap:
    """The map of a part of a sequence.

    A part may begin or end inside a picture: chunked prefill cuts anywhere, and each row of a batch is cut elsewhere.

    Args:
        visual: (B, S) bool, where the part's placeholders are.
        pictures: what fills them; or rows and columns of visual tokens, where every picture is one tile of one grid.
        before: the map of what precedes the part.
    """
    chunk = plain(visual.long())
    seen = before.placeholders.sum(1, keepdim=True) if before is not None else 0  # (B, 1)
    number = visual.cumsum(1) - 1 + seen  # (B, S) of a placeholder among those of its sequence
    if isinstance(pictures, Filling):
        if not visual.any():
            return chunk
        place = (number - pictures.before.to(number)).clamp(min=0)[..., None].expand(-1, -1, 5)
        cells = pictures.cells.to(number).gather(1, place.clamp(max=pictures.cells.shape[1] - 1))  # (B, S, 5)
        kind, image, tile, row, column = torch.where(visual[..., None], cells, -1).unbind(-1)
        return TokenMap(torch.where(visual, kind, chunk.kind), image, tile, row, column, chunk.role)
    grid = pictures
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
