"""What lies on each patch: the dual encoder's dense loss, for the tower of a composed model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.training.data import StageData
from argus.training.objectives.contrastive import dense_loss
from argus.training.options import DataOptions
from argus.world.domain import DENSE_CLASSES
from tests.model.encoders.test_interface import CONFIGS
from tests.model.tiny import LANGUAGE
from tests.training.test_stage import DATA, dual


def composed(tower: Any) -> ArgusForConditionalGeneration:
    torch.manual_seed(0)
    return ArgusForConditionalGeneration(ArgusConfig(tower.to_dict(), {**LANGUAGE["llama"], "vocab_size": 64}))


def pictures(size: int) -> StageData:
    return StageData(DataOptions.model_validate({**DATA, "size": size}), 100, questions=False)


def bound(model: Any, **options: Any) -> Any:
    objective = build("objective", "dense", options)
    objective.bind(model, None)
    return objective


def test_it_is_the_dense_loss_of_a_dual_encoder_with_the_same_tower() -> None:
    other, words = dual()
    model = composed(other.config.vision_config)
    model.model.vision_tower.load_state_dict(other.vision_tower.state_dict())
    objective, contrastive = bound(model), build("objective", "contrastive", {"clip": 0.0, "empty": 0.15})
    contrastive.bind(other, words)
    heads = objective.parts["tokens"]
    heads.norm.load_state_dict(other.dense_norm.state_dict())
    heads.heads.load_state_dict(other.dense_heads.state_dict())
    items = [pictures(32)[i] for i in range(3)]
    batch, expected = objective.collate(items), contrastive.collate(items)
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    loss, shown = objective.loss(model, batch)
    wanted, parts = contrastive.loss(other, expected)
    torch.testing.assert_close(loss, wanted)
    assert {name: float(value) for name, value in shown.items()} == {name: float(value) for name, value in parts.items()}


def test_earlier_stages_are_asked_on_their_own_grids() -> None:
    tower = CONFIGS["argus_fastvit_hd"]
    model = composed(tower)
    stride = model.model.vision_tower.patch_size
    objective = bound(model, maps=2)
    batch = objective.collate([pictures(4 * stride)[i] for i in range(2)])
    assert [batch[f"{name}dense_shape"].shape[-1] for name in ("", "map_1_", "map_2_")] == [4, 8, 16]
    loss, shown = objective.loss(model, batch)
    features = model.model.vision_tower(batch["pixel_values"])
    expected = dense_loss(objective.parts["tokens"](features.tokens), batch, 0.15)[0]
    assert shown["dense"] == pytest.approx(expected.item(), rel=1e-4)
    for k in (1, 2):
        cells = features.feature_maps[-1 - k].flatten(2).transpose(1, 2)
        truth = {f"dense_{head}": batch[f"map_{k}_dense_{head}"] for head in DENSE_CLASSES}
        expected = expected + dense_loss(objective.parts[f"map_{k}"](cells), truth, 0.15)[0]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learned
    assert all(name.startswith("model.vision_tower.") for name in learned)


def test_what_it_cannot_ask_is_refused() -> None:
    other, _ = dual()
    with pytest.raises(UnsupportedError, match="this tower has 0"):
        bound(composed(other.config.vision_config), maps=1)
    with pytest.raises(UnsupportedError, match="no vision tower"):
        bound(torch.nn.Linear(2, 2))
    objective = bound(composed(other.config.vision_config))
    with pytest.raises(UnsupportedError, match="no dense truth"):
        objective.collate([Sample("a", [Message("user", [TextPart("?")])])])
