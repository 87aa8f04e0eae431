"""The cache of a layer that holds fewer positions than the sequence has."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, StaticCache

from argus.core.errors import UnsupportedError
from argus.methods.kept_cache import KeptLayer, Layout, Shift, kept_layer


def layer() -> KeptLayer:
    """Two items, 8 columns seen; item 0 holds 0 1 5 6 7, item 1 holds 1 5 6 7 behind one entry of padding."""
    columns = torch.tensor([[0, 1, 5, 6, 7], [-1, 1, 5, 6, 7]])
    made = KeptLayer(Layout(columns, 8, True, (Shift(0, 4, torch.tensor([3, 4])),)))
    entries = torch.arange(10.0).view(2, 1, 5, 1)
    made.update(entries, -entries)
    return made


def test_reports_the_whole_sequence() -> None:
    kept = layer()
    assert kept.get_seq_length() == 8
    assert kept.get_mask_sizes(2) == (10, 0)
    assert kept.keys.shape[2] == 5
    assert kept.layout.shift().tolist() == [3, 4]


def test_crop_by_columns() -> None:
    kept = layer()
    kept.crop(-2)  # forgets columns 6 and 7
    assert kept.get_seq_length() == 6
    assert kept.layout.columns.tolist() == [[0, 1, 5], [-1, 1, 5]]
    assert kept.keys[:, 0, :, 0].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert kept.layout.shift().tolist() == [3, 4]
    with pytest.raises(UnsupportedError, match="in the middle of a picture"):
        kept.crop(-3)
    kept.crop(-6)  # back to before the picture: nothing was dropped there
    assert kept.layout.shift() is None
    assert kept.get_seq_length() == 0
    assert kept.keys.shape[2] == 0
    with pytest.raises(ValueError, match="negative"):
        layer().crop(3)


def test_beams_copies_and_repeats() -> None:
    kept, twin = layer(), layer()
    twin.layout = kept.layout  # layers of one model share a layout, and still do after each change
    swap = torch.tensor([1, 0])
    for one in (kept, twin):
        one.reorder_cache(swap)
    assert kept.layout is twin.layout
    assert kept.layout.columns[0].tolist() == [-1, 1, 5, 6, 7]
    assert kept.layout.shift().tolist() == [4, 3]
    assert kept.keys[0, 0, :, 0].tolist() == [5, 6, 7, 8, 9]
    for one in (kept, twin):
        one.batch_repeat_interleave(2)
    assert kept.layout is twin.layout
    assert kept.layout.columns[:, 0].tolist() == [-1, -1, 0, 0]
    other = copy.deepcopy(kept)
    other.crop(-1)
    assert (kept.get_seq_length(), other.get_seq_length()) == (8, 7)
    kept.batch_select_indices(torch.tensor([2]))
    assert kept.layout.columns.tolist() == [[0, 1, 5, 6, 7]]
    kept.reset()
    assert kept.get_seq_length() == 0


def test_plain_layers_are_taken_over_and_others_refused() -> None:
    cache = DynamicCache()
    entries = torch.ones(1, 1, 4, 2)
    cache.update(entries, entries, 0)
    whole = Layout(torch.arange(4)[None], 4)
    taken = kept_layer(cache, 0, whole)
    assert cache.layers[0] is taken
    assert taken.get_seq_length() == 4
    assert torch.equal(taken.keys, entries)
    assert kept_layer(cache, 0, whole) is taken
    static = StaticCache(LlamaConfig(num_hidden_layers=1), max_cache_len=8)
    with pytest.raises(UnsupportedError, match="StaticLayer cannot hold different lengths"):
        kept_layer(static, 0, whole)


def test_forgetting_by_hand() -> None:
    """Three items hold columns 0 and 1, the last one behind padding; column 2 comes, then 3."""
    kept, twin = KeptLayer(Layout(torch.tensor([[0, 1], [0, 1], [-1, 1]]), 2, True)), KeptLayer(Layout(torch.empty(3, 0), 0))

    def add(column: int) -> None:
        entries = torch.full((3, 1, 1, 1), float(column))
        for one in (kept, twin):
            one.update(entries, -entries)
        columns = torch.cat([kept.layout.columns, torch.full((3, 1), column)], dim=1)
        kept.layout = twin.layout = Layout(columns, column + 1, True)

    kept.update(torch.arange(2.0).expand(3, 2)[:, None, :, None], -torch.arange(2.0).expand(3, 2)[:, None, :, None])
    twin.update(kept.keys.clone(), kept.values.clone())
    add(2)
    some = torch.tensor([True, False, False])
    for one in (kept, twin):
        one.forget(some)
    assert kept.layout is twin.layout  # layers share what they hold alike
    assert kept.layout.columns.tolist() == [[0, 1, 2], [-1, 0, 1], [-1, -1, 1]]
    assert kept.keys[:2, 0, :, 0].tolist() == [[0, 1, 2], [2, 0, 1]]  # what nobody looks at is anything
    add(3)
    kept.forget(torch.zeros(3, dtype=torch.bool))  # nobody keeps it: it is cut off
    assert kept.layout.columns.tolist() == [[0, 1, 2], [-1, 0, 1], [-1, -1, 1]]
    assert kept.get_seq_length() == 4
    add(4)
    kept.forget(torch.tensor([False, True, True]))  # the longest item has three: one column less for all
    assert kept.layout.columns.tolist() == [[0, 1, 2], [0, 1, 4], [-1, 1, 4]]
    assert torch.equal(kept.values, -kept.keys)
