"""Commands called in this process, as a shell would call them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from argus.cli.app import app


@pytest.fixture
def argus() -> Callable[..., Result]:
    """`argus("components", "list")` -> exit code and output."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])
