"""Tiny models, made once per module."""

from __future__ import annotations

from typing import Any

import pytest

from tests.methods.families import FAMILIES


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
