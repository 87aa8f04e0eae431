"""The model in hand: what a variant's stages left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from argus.core.run import Run
from argus.model.load import load
from argus.runner.held import Held, stage_folder
from argus.runner.plan import plan
from tests.runner.tiny import tiny_model

RECIPE = """\
name: Folded
model:
  compose:
    language_model: {model}
    encoder: {{fastvit_hd: {{depths: [1, 1], widths: [8, 32], attention_stages: 1, image_size: 32}}}}
stages:
  see:
    objective: {{dense: {{maps: 1}}}}
    data: {{world: {{objects: 1.0}}, size: 32}}
    train: [vision_tower, dense]
    steps: 2
    batch_size: 4
    precision: fp32
variants:
  seeing: {{train: [see]}}
claims: [seeing.see.loss > 0]
"""


def test_a_tower_is_folded_once_it_has_learned_and_kept_as_it_learns(tmp_path: Path) -> None:
    file = tmp_path / "folded.yaml"
    file.write_text(RECIPE.format(model=tiny_model()))
    made = plan(file)
    opened = Run.create(made.recipe, tmp_path / "runs")
    model, _ = Held(made, opened).take("seeing")
    stored: Any = load(str(stage_folder(made, opened, "seeing", "see") / "model"))[0]
    assert model.model.vision_tower.config.fused
    assert not stored.model.vision_tower.config.fused
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        folded, learned = (m.eval().model.vision_tower(pixels).tokens for m in (model, stored))
    torch.testing.assert_close(folded, learned, rtol=1e-4, atol=1e-4)
