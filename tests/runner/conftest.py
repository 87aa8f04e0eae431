"""Recipes on a tiny random model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runner.tiny import tiny_model

RECIPE = """\
name: Tiny
model: {{from: {model}}}
variants:
  full: {{}}
  fastervlm: {{attach: {{fastervlm: {{keep: 0.25}}}}}}
  fastv: {{attach: {{fastv: {{keep: 0.25, layer: 1}}}}}}
evaluate:
  - scenario: {{world/objects: {{size: 32, families: [existence, colour, count]}}}}
    samples: 48
    batch_size: 2
    cost_samples: 2
    examples: 2
    metrics: [accuracy, prefill_flops, visual_tokens]
claims:
  - fastervlm.visual_tokens == 4
  - fastv.prefill_flops < full.prefill_flops
  - full.accuracy[colour] >= 0
"""


@pytest.fixture(scope="session")
def model() -> Path:
    """The folder of the tiny model."""
    return tiny_model()


@pytest.fixture
def recipe(tmp_path: Path, model: Path) -> Callable[..., Path]:
    """Writes the tiny recipe, with pieces of its text replaced."""

    def write(*changes: tuple[str, str]) -> Path:
        text = RECIPE.format(model=model)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "tiny.yaml"
        file.write_text(text)
        return file

    return write
