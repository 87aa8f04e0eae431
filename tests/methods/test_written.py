"""Which part of a sequence is the prompt, where no cache tells."""

from __future__ import annotations

import torch

from argus.methods.written import Written


def test_where_a_sequence_without_a_cache_was_written() -> None:
    seen, ids = Written(), torch.arange(8)[None]
    assert seen.prompt(ids[:, :5], None) is None
    assert [seen.prompt(ids[:, :n], None) for n in (6, 7)] == [5, 5]
    assert seen.prompt(ids[:, :7], None) is None  # the same once more is a prompt
    assert seen.prompt(ids[:, :8] + 1, None) is None  # so is another of any length
    assert seen.prompt(None, None) is None
