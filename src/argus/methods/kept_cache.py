"""A layer of the KV cache that holds only some positions of the sequence, and knows which.

Once visual tokens are dropped, each decoder layer keeps keys and values of its own subset of the sequence. To
everything outside - `generate`, masks, position ids, cropping - the layer still reports the length of the whole
sequence; the positions it really holds are in `columns`. Because that record lives in the cache, it follows it
wherever it goes: beams, copies, crops, chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from argus.core.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Shift:
    """A drop after which later positions were renumbered: columns first..last, and by how many (B,) per item."""

    first: int
    last: int
    by: Tensor


class KeptLayer(DynamicLayer):
    """Keys and values (B, H, L, d) of some columns of a sequence.

    Attributes:
        columns: (B, L) which column of the sequence each entry is; -1 is padding of items that kept fewer.
        length: columns that the layer has seen, whether kept or not.
        shifts: the drops that renumbered later positions; empty where positions stay what they were.
        ragged: whether any entry is padding.
    """

    def __init__(self, columns: Tensor, length: int) -> None:
        super().__init__()
        self.columns, self.length = columns, length
        self.shifts: list[Shift] = []
        self.ragged = False

    def shift(self) -> Tensor | None:
        """(B,) how far a position behind everything in the cache moves forward; None where nothing was renumbered."""
        return torch.stack([s.by for s in self.shifts]).sum(0) if self.shifts else None

    def get_seq_length(self) -> int:
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last `-tokens_to_remove` columns of the sequence."""
        if tokens_to_remove > 0:
            raise ValueError("crop takes a negative number: how many tokens to forget")
        if tokens_to_remove == 0:
            return
        length = self.length + tokens_to_remove
        if any(s.first < length <= s.last for s in self.shifts):
            raise UnsupportedError("a cache cannot be cropped in the middle of a picture whose tokens were dropped.")
        self.shifts = [s for s in self.shifts if s.last < length]
        self.length = length
        gone = self.columns >= self.length
        entries = self.columns.shape[1]
        stay = ~(gone | (self.columns < 0)).all(0)
        width = int(stay.nonzero().max()) + 1 if stay.any() else 0
        self.columns = self.columns.masked_fill(gone, -1)[:, :width]
        self.ragged = self.ragged and bool((self.columns < 0).any())
        if width < entries and self.is_initialized:
            self.keys, self.values = self.keys[..., :width, :], self.values[..., :width, :]

    def reset(self) -> None:
        super().reset()
        self.columns, self.length = self.columns[:, :0], 0
        self.shifts, self.ragged = [], False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._select(torch.arange(len(self.columns), device=self.columns.device).repeat_interleave(repeats))

    def _select(self, items: Tensor) -> None:
        items = items.to(self.columns.device)
        self.columns = self.columns[items]
        self.shifts = [Shift(s.first, s.last, s.by[items]) for s in self.shifts]


def kept_layer(cache: Cache, index: int, batch: int, device: torch.device) -> KeptLayer:
    """The cache's layer as one that may hold fewer columns; a plain dynamic layer is replaced by one with the same
    content.

    Raises:
        UnsupportedError: a cache whose layers have one common, fixed or windowed length.
    """
    while len(cache.layers) <= index and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    layer: Any = cache.layers[index]
    if isinstance(layer, KeptLayer):
        return layer
    if type(layer) is not DynamicLayer:
        raise UnsupportedError(
            f"a cache of {type(layer).__name__} cannot hold different lengths in different layers, which dropping "
            "visual tokens needs.",
            hint="Use the default DynamicCache (no cache_implementation).",
        )
    length = layer.get_seq_length()
    kept = KeptLayer(torch.arange(length, device=device).expand(batch, -1), length)
    if layer.is_initialized:
        kept.lazy_initialization(layer.keys, layer.values)
        kept.keys, kept.values = layer.keys, layer.values
    cache.layers[index] = kept
    return kept
