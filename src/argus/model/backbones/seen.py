"""What text sees of tiles that stay out of the sequence: their keys and values, and which row of a pass sees which.

A tag's tokens see their own tile. Text behind a picture sees all of its tiles, if it sees the picture's place in the sequence:
samples that were packed into one row, turns that share a picture, and questions behind a shared cache stay apart by the mask
of self-attention itself. Everything else sees nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from argus.model.backbones.fusion import Crossed
from argus.model.token_map import SPECIAL, TEXT, TokenMap

GIVEN = "argus_seen"  # argument of decoder layers, and attribute of a KV cache


@dataclass(slots=True)
class Seen:
    """Keys of a batch.

    Args:
        image, tile: (B, K) picture and tile of each key; -1 on padding.
        place: (B, P) last position of each picture's block in the sequence; -1 where there is none.
        layers: keys and values (B, h, K, d) of each layer.
        mask: (B, 1, S, K), 0 where a row of a pass sees a key and the type's least number elsewhere.
        rows: (B, S, 1) bool, rows of a pass that see anything.
        reached: whether a layer has read it in this pass.
    """

    image: Tensor
    tile: Tensor
    place: Tensor
    layers: list[tuple[Tensor, Tensor]]
    mask: Tensor | None = None
    rows: Tensor | None = None
    reached: bool = False

    def repeated(self, batch: int) -> Seen:
        """For a batch in which every sequence was repeated: beams, and continuations of one prefix."""
        if (times := batch // len(self.image)) == 1:
            return self
        image, tile, place = (t.repeat_interleave(times, 0) for t in (self.image, self.tile, self.place))
        return Seen(image, tile, place, [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.layers])

    def join(self, more: Seen) -> Seen:
        """With the pictures of a later turn."""
        image, tile = torch.cat([self.image, more.image], 1), torch.cat([self.tile, more.tile], 1)
        wide = max(self.place.shape[1], more.place.shape[1])
        places = [torch.nn.functional.pad(s.place, (0, wide - s.place.shape[1]), value=-1) for s in (self, more)]
        pairs = [zip(*two, strict=True) for two in zip(self.layers, more.layers, strict=True)]
        layers = [(torch.cat(next(pair), 2), torch.cat(next(pair), 2)) for pair in pairs]
        return Seen(image, tile, torch.maximum(*places), layers)

    def masked(self, allowed: Tensor) -> Seen:
        """For a pass in which rows see keys as `allowed` (B, S, K) says."""
        rows = allowed.any(-1, keepdim=True)
        shut = ~allowed & rows  # a row that sees nothing sees everything, so that softmax has something; it is thrown away
        dtype = self.layers[0][1].dtype
        mask = torch.zeros(shut.shape, dtype=dtype, device=shut.device).masked_fill_(shut, torch.finfo(dtype).min)
        return replace(self, mask=mask[:, None], rows=rows, reached=False)


def seen_bytes(cache: Any) -> int:
    """Bytes of the keys and values that are kept beside a KV cache."""
    return sum(t.nbytes for layer in cache.__dict__[GIVEN].layers for t in layer) if hasattr(cache, GIVEN) else 0


def seen(crossed: Crossed, places: Tensor, past: int, layers: list[tuple[Tensor, Tensor]]) -> Seen:
    """Pictures that come with a prompt, padded over the batch.

    Args:
        crossed: N visual tokens.
        places: (B, L) picture of each position of the prompt; -1 for none.
        past: positions in front of the prompt.
        layers: keys and values (N, h, d) of each layer.
    """
    last = places.amax(1)  # (B,) number of the last picture of each row, and of the first
    first = torch.where(places < 0, last[:, None] + 1, places).amin(1)
    position = torch.arange(past, past + places.shape[1], device=places.device).expand_as(places)
    place = places.new_full((len(places), int(last.max()) + 1), -1)
    place = place.scatter_reduce(1, places.clamp(min=0), position.masked_fill(places < 0, -1), "amax")
    counts = torch.tensor(crossed.counts)
    picture = torch.repeat_interleave(torch.arange(len(counts)), counts)  # (N,)
    many = (last + 1 - first).cpu()  # (B,) pictures of each row
    row = torch.repeat_interleave(torch.arange(len(many)), many)[picture]  # (N,)
    number = picture - (many.cumsum(0) - many - first.cpu())[row]  # (N,) of a picture in its row
    sizes = torch.bincount(row, minlength=len(many)).tolist()

    def padded(flat: Tensor, value: int) -> Tensor:
        return pad_sequence(list(flat.split(sizes)), batch_first=True, padding_value=value).to(crossed.tokens.device)

    index, image = padded(torch.arange(len(picture)), 0), padded(number, -1)  # (B, K)
    tile = crossed.tile.to(index.device)[index].masked_fill(image < 0, -1)
    return Seen(image, tile, place, [(k[index].transpose(1, 2), v[index].transpose(1, 2)) for k, v in layers])


def visible(keys: Seen, known: TokenMap, past: int, mask: Tensor | None) -> Tensor:
    """Which rows of a pass see which keys: bool (B, S, K).

    Args:
        known: the map of the sequence so far, (B, past + S).
        mask: the attention mask of the pass.
    """
    rows = known.slice(past)
    batch, length = rows.kind.shape
    image, tile, place = keys.image[:, None], keys.tile[:, None], keys.place[:, None]  # (B, 1, K), (B, 1, K), (B, 1, P)
    own = rows.tags[..., None] & (image == rows.image[..., None]) & (tile == rows.tile[..., None])
    query = torch.arange(past, past + length, device=place.device)
    there = (place >= 0) & (place < query[:, None])  # (B, S, P)
    if mask is not None and mask.ndim == 4:
        table = mask[:, 0].expand(batch, -1, -1)
        opened = table if table.dtype == torch.bool else table > torch.finfo(table.dtype).min / 2
        there = there & opened.gather(2, place.clamp(min=0).expand(-1, length, -1))
    about = ((rows.kind == TEXT) | (rows.kind == SPECIAL)) & (rows.image < 0)
    behind = there.gather(2, image.clamp(min=0).expand(-1, length, -1)) & (image >= 0)
    return own | (about[..., None] & behind)
