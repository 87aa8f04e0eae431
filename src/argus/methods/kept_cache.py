"""A layer of the KV cache that holds only some positions of the sequence, and knows which.

Once visual tokens are dropped, each decoder layer keeps keys and values of its own subset of the sequence. To
everything outside - `generate`, masks, position ids, cropping - the layer still reports the length of the whole
sequence; what it really holds is its layout. Because that lives in the cache, it follows it wherever it goes: beams,
copies, crops, chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which columns of a sequence a cache layer holds. Layers with equal content share one, so changes are made once.

    Args:
        columns: (B, L) column of each entry, ascending; -1 is an entry that nothing may look at.
        length: columns that the layer has seen, held or not.
        ragged: whether there may be entries of -1.
        shifts: drops that renumbered later positions.
        visual: (B, L) bool, which entries are visual tokens; None where nobody asks.
    """

    columns: Tensor
    length: int
    ragged: bool = False
    shifts: tuple[Shift, ...] = ()
    visual: Tensor | None = None
    _changed: dict[Any, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def shift(self) -> Tensor | None:
        """(B,) how far a position behind everything moves forward; None where nothing was renumbered."""
        return torch.stack([s.by for s in self.shifts]).sum(0) if self.shifts else None

    def select(self, items: Tensor) -> Layout:
        """Rows `items` of the batch: beams that were reordered, prompts that were repeated."""
        asked, changed = self._changed.get(id(items), (None, None))
        if asked is not items or changed is None:
            rows = items.to(self.columns.device)
            shifts = tuple(Shift(s.first, s.last, s.by[rows]) for s in self.shifts)
            visual = None if self.visual is None else self.visual[rows]
            changed = Layout(self.columns[rows], self.length, self.ragged, shifts, visual)
            self._changed[id(items)] = items, changed
        return changed

    def repeated(self, times: int) -> Layout:
        """Each row of the batch `times` times in a row."""
        if ("repeated", times) not in self._changed:
            rows = torch.arange(len(self.columns), device=self.columns.device).repeat_interleave(times)
            self._changed["repeated", times] = rows, self.select(rows)
        return self._changed["repeated", times][1]

    def cropped(self, length: int) -> Layout:
        """Only the first `length` columns."""
        if ("cropped", length) not in self._changed:
            if any(s.first < length <= s.last for s in self.shifts):
                raise UnsupportedError("a cache cannot be cropped in the middle of a picture whose tokens were dropped.")
            columns = self.columns.masked_fill(self.columns >= length, -1)
            held = (columns >= 0).any(0)
            width = int(held.nonzero().max()) + 1 if held.any() else 0
            ragged = bool((columns[:, :width] < 0).any())
            shifts = tuple(s for s in self.shifts if s.last < length)
            visual = None if self.visual is None else self.visual[:, :width]
            self._changed["cropped", length] = None, Layout(columns[:, :width], length, ragged, shifts, visual)
        return self._changed["cropped", length][1]

    def forgotten(self, kept: Tensor) -> tuple[Layout, Tensor | None]:
        """Without the last column in rows that do not keep it, and as short as the longest row.

        Args:
            kept: (B,) bool; one row at least does not.

        Returns:
            The layout, and (B, L') which entries it is made of; None for all but the last one.
        """
        asked, changed = self._changed.get(("forgotten", id(kept)), (None, None))
        if asked is not kept or changed is None:
            columns, visual, order = self.columns[:, :-1], self.visual, None
            if visual is not None:
                visual = visual[:, :-1]
            if bool(kept.any()):
                columns = torch.cat([columns, torch.where(kept[:, None], self.columns[:, -1:], -1)], dim=1)
                held = columns >= 0
                # Entries that nothing may look at go to the front, where they can be cut off.
                order = held.int().argsort(dim=1, stable=True)[:, columns.shape[1] - int(held.sum(1).max()) :]  # (B, L')
                columns = columns.gather(1, order)
                visual = None if self.visual is None else self.visual.gather(1, order)
            changed = Layout(columns, self.length, bool((columns < 0).any()), self.shifts, visual), order
            self._changed["forgotten", id(kept)] = kept, changed
        return changed


class KeptLayer(DynamicLayer):
    """Keys and values (B, H, L, d) of the columns in `layout` (B, L)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def get_seq_length(self) -> int:
        return self.layout.length

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last `-tokens_to_remove` columns of the sequence."""
        if tokens_to_remove > 0:
            raise ValueError("crop takes a negative number: how many tokens to forget")
        if tokens_to_remove == 0:
            return
        self.layout = self.layout.cropped(self.layout.length + tokens_to_remove)
        keys, values = self.keys, self.values  # type: ignore[has-type]
        if keys is not None and values is not None:
            width = self.layout.columns.shape[1]
            self.keys, self.values = keys[..., :width, :], values[..., :width, :]

    def forget(self, kept: Tensor) -> None:
        """Lets the rows that do not keep it, (B,) bool, forget the last column; it still counts as seen."""
        self.layout, entries = self.layout.forgotten(kept)
        keys, values = self.keys, self.values
        if entries is None:
            self.keys, self.values = keys[..., :-1, :], values[..., :-1, :]
        else:
            index = entries[:, None, :, None]  # (B, 1, L', 1)
            self.keys, self.values = (t.gather(2, index.expand(-1, t.shape[1], -1, t.shape[3])) for t in (keys, values))

    def reset(self) -> None:
        super().reset()
        self.layout = Layout(self.layout.columns[:, :0], 0)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        self.layout = self.layout.select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.layout = self.layout.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.layout = self.layout.repeated(repeats)


def kept_layer(cache: Cache, index: int, whole: Layout) -> KeptLayer:
    """The cache's layer as one that may hold fewer columns; a plain dynamic layer is replaced, its content kept.

    Args:
        whole: the layout of a layer that holds everything the cache has seen.

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
    kept = KeptLayer(whole)
    if layer.keys is not None and layer.values is not None:
        kept.lazy_initialization(layer.keys, layer.values)
        kept.keys, kept.values = layer.keys, layer.values
    cache.layers[index] = kept
    return kept
