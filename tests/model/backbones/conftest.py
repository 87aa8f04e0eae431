"""The two ways of NVLM with cross-attention, one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model.backbones.nvlm import CROSS, made


@pytest.fixture(params=CROSS)
def both(request: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    return made(request.param, monkeypatch)
