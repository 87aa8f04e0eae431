"""Stored towers, read as their options say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionModel, Dinov2Model

from argus.model.compose import compose
from argus.model.encoders.base import nested_config
from argus.model.load import load
from argus.model.stored_tower import load_tower
from tests.model.test_load import language
from tests.model.tiny import SMALL, TOWERS


@pytest.mark.parametrize(("options", "layer"), [({}, 2), ({"feature_layer": 1}, 1), ({"feature_layer": -1}, 3)])
@torch.no_grad()
def test_a_stored_tower_is_read_at_the_layer_that_was_asked_for(options: dict[str, Any], layer: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = CLIPVisionModel(TOWERS["clip"]).eval()
    plain.save_pretrained(tmp_path)
    tower, pixels = load_tower({"transformers": {"from": str(tmp_path), **options}}), torch.randn(1, 3, 32, 32)
    states = plain(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(tower(pixels).tokens, states[layer][:, 1:])
    assert not any(weight.requires_grad for weight in tower.parameters())


@torch.no_grad()
def test_a_stored_tower_is_read_behind_its_final_norm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = CLIPVisionModel(TOWERS["clip"]).eval()
    plain.save_pretrained(tmp_path)
    tower = load_tower({"transformers": {"from": str(tmp_path), "final_norm": True}})
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(tower(pixels).tokens, plain(pixels).last_hidden_state[:, 1:])


VIT = {"vit": {**SMALL, "intermediate_size": 48}}
FAST = {"fastvit_hd": {"depths": (1, 1), "widths": (8, 32), "attention_stages": 1, "image_size": 64}}
AROUND: dict[str, Any] = {
    "transformers": lambda folder: {"from": folder},
    "s2": lambda folder: {"encoder": folder},
    "comm": lambda folder: {"towers": [{"encoder": VIT}, {"encoder": folder}]},
    "low_high": lambda folder: {"low": folder, "high": FAST},
}


@pytest.mark.parametrize("name", AROUND)
def test_a_model_around_a_stored_tower_is_loaded_in_one_type(name: str, tmp_path: Path) -> None:
    """The tower's own file said float32."""
    Dinov2Model(TOWERS["dinov2"]).save_pretrained(tmp_path / "dino")
    encoder = {name: AROUND[name](str(tmp_path / "dino"))}
    model, processor = compose({"language_model": language(tmp_path / "lm", "llama"), "encoder": encoder})
    model.save_pretrained(tmp_path / "made")
    processor.save_pretrained(tmp_path / "made")
    half, _ = load(str(tmp_path / "made"), dtype="bfloat16")
    side = half.model.vision_tower.image_size
    with torch.no_grad():
        found = half.get_image_features(torch.randn(1, 3, side, side))
    assert found.dtype == torch.bfloat16
    assert {p.dtype for n, p in half.named_parameters() if "weights.layer_" not in n} == {torch.bfloat16}


def test_a_part_has_the_type_of_the_whole() -> None:
    assert nested_config({"model_type": "clip_text_model", "dtype": "float32"}, "llama").dtype is None
