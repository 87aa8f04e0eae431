"""Tiny models, made once per module; the families and reducers that tests go through; a kernel that takes padding masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from tests.methods.families import FAMILIES
from tests.methods.reducers import REDUCERS


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """One model of each family; tests that change weights or mode make their own."""
    return {name: family.model() for name, family in FAMILIES.items()}


@pytest.fixture(params=[name for name in sorted(FAMILIES) if FAMILIES[name].plain])
def plain(request: Any) -> str:
    """A family whose pictures are one crop each."""
    return request.param


@pytest.fixture(params=sorted(FAMILIES))
def family(request: Any) -> str:
    return request.param


@pytest.fixture(params=REDUCERS)
def reducer(request: Any) -> str:
    return request.param


@pytest.fixture
def flash() -> Iterator[str]:
    """A kernel with the conventions of flash attention: no mask or (B, K) padding, causal, queries aligned to the end."""

    def kernel(module, query, key, value, attention_mask, scaling=None, **kwargs):  # type: ignore[no-untyped-def]
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        out = torch.zeros_like(query)
        for b in range(len(query)):  # as if unpadded: every item alone, without its padding
            keys = torch.ones(key.shape[2], dtype=torch.bool) if attention_mask is None else attention_mask[b].bool()
            queries = keys[-query.shape[2] :]
            q, k, v = query[b][:, queries], key[b][:, keys], value[b][:, keys]
            causal = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
            weights = (q @ k.transpose(-1, -2) * scaling).masked_fill(~causal, float("-inf")).softmax(-1)
            out[b][:, queries] = weights @ v
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("test_flash", kernel)
    AttentionMaskInterface.register("test_flash", flash_attention_mask)
    yield "test_flash"
    del AttentionInterface._global_mapping["test_flash"], AttentionMaskInterface._global_mapping["test_flash"]
