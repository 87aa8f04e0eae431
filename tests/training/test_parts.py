"""Which parts learn, and at which rate."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig

from argus.core.errors import RecipeError, UnsupportedError
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.base import build_tower
from argus.training.parts import draw_anew, parameter_groups, set_trainable
from tests.model.encoders.test_families import config
from tests.model.encoders.test_interface import CONFIGS
from tests.model.tiny import LANGUAGE, TOWERS


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {"vision_tower": nn.Linear(2, 3), "multi_modal_projector": nn.Linear(3, 4), "language_model": nn.LayerNorm(4)}
        )
        self.lm_head = nn.Linear(4, 5, bias=False)


def learned(model: nn.Module) -> set[str]:
    return {name.removeprefix("model.") for name, p in model.named_parameters() if p.requires_grad}


def test_only_the_named_parts_learn() -> None:
    toy = Toy()
    counts = set_trainable(toy, train=["multi_modal_projector"])
    assert counts == {"multi_modal_projector": 3 * 4 + 4}
    assert learned(toy) == {"multi_modal_projector.weight", "multi_modal_projector.bias"}


def test_freezing_is_taken_from_what_learns() -> None:
    counts = set_trainable(Toy(), freeze=["vision_tower"])
    assert set(counts) == {"multi_modal_projector", "language_model", "lm_head"}


def test_an_unknown_part_gives_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'vision_tower'"):
        set_trainable(Toy(), train=["vision_towr"])


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(RecipeError, match="nothing is left to train"):
        set_trainable(Toy(), train=["lm_head"], freeze=["lm_head"])


def test_rates_per_part_and_no_decay_on_vectors() -> None:
    toy = Toy()
    set_trainable(toy)
    groups = parameter_groups(toy, 1e-3, {"vision_tower": 1e-4}, 0.05)
    found = {(g["lr"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in groups}
    # vision_tower: 2 x 3 weight with decay, 3 biases without; the others at the base rate.
    assert found == {(1e-4, 0.05): 6, (1e-4, 0.0): 3, (1e-3, 0.05): 12 + 20, (1e-3, 0.0): 4 + 8}


def test_a_parameter_of_the_model_itself_is_a_part() -> None:
    """A dual encoder's temperature belongs to no module."""
    toy = Toy()
    toy.register_parameter("logit_scale", nn.Parameter(torch.zeros(())))
    counts = set_trainable(toy, freeze=["logit_scale"])
    assert not toy.logit_scale.requires_grad
    assert "logit_scale" not in counts


def test_a_piece_of_a_path_is_a_part() -> None:
    """Where a name alone would be several: `norm` is in a tower and in the language model too."""
    model = nn.ModuleDict({part: nn.ModuleDict({"norm": nn.LayerNorm(2)}) for part in ("vision_tower", "language_model")})
    set_trainable(model, train=["language_model.norm"])
    assert learned(model) == {"language_model.norm.weight", "language_model.norm.bias"}
    set_trainable(model, train=["norm"], freeze=["vision_tower.norm"])
    assert learned(model) == {"language_model.norm.weight", "language_model.norm.bias"}
    with pytest.raises(RecipeError, match=r"no part 'lm\.norm'"):
        set_trainable(model, train=["lm.norm"])


LAST: dict[str, tuple[PretrainedConfig, list[str]]] = {
    "vit": (TOWERS["vit"], ["blocks.1"]),
    "clip": (TOWERS["clip"], ["tower.encoder.layers.1"]),
    "siglip": (TOWERS["siglip"], ["tower.encoder.layers.1"]),
    "dinov2": (TOWERS["dinov2"], ["tower.encoder.layer.1"]),
    "mae": (TOWERS["mae"], ["tower.layers.1"]),
    "internvl": (config("internvl_vision"), ["tower.encoder.layer.1"]),
    "siglip2": (config("siglip2_vision_model"), ["tower.encoder.layers.1"]),
    "convnext": (config("convnext"), ["tower.encoder.stages.3.layers.0"]),
    "convnextv2": (config("convnextv2"), ["tower.encoder.stages.3.layers.0"]),
    "vitamin": (CONFIGS["argus_vitamin"], ["blocks.0"]),
    "fastvit_hd": (CONFIGS["argus_fastvit_hd"], ["stages.2.blocks.0"]),
    "s2": (CONFIGS["argus_s2"], ["towers.0.blocks.1"]),
    "comm": (CONFIGS["argus_comm"], ["towers.0.blocks.2", "towers.1.tower.encoder.layer.2"]),  # it merges all layers
    "low_high": (CONFIGS["argus_low_high"], ["towers.0.blocks.1", "towers.1.stages.2.blocks.0"]),
}


@pytest.mark.parametrize("family", LAST)
def test_the_last_block_that_makes_tokens_and_ovis_beside_it(family: str) -> None:
    """The first stage of Ovis (arXiv 2405.20797): the last block of the encoder, the head, and the embedding table, exactly."""
    vision, blocks = LAST[family]
    text = {**LANGUAGE["llama"], "vocab_size": 64}
    torch.manual_seed(0)
    model = ArgusForConditionalGeneration(ArgusConfig(vision.to_dict(), text, connector={"ovis": {"vocabulary": 20}}))
    set_trainable(model, train=["vision_tower.last1", "multi_modal_projector"])
    parts = {f"multi_modal_projector.{name}" for name in ("head.weight", "norm.weight", "norm.bias", "table.weight")}
    inside = tuple(f"vision_tower.{block}." for block in blocks)
    everything = {name.removeprefix("model.") for name, _ in model.named_parameters()}
    assert learned(model) == parts | {name for name in everything if name.startswith(inside)}
    tower: Any = model.train().model.vision_tower
    pixels = torch.randn(2, 3, tower.image_size, tower.image_size)
    model.model.encode_images(pixels).tokens.square().sum().backward()
    moved = {n.removeprefix("model.") for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    making = inside[:1] if family == "low_high" else inside  # its second encoder makes maps, which another connector reads
    assert all(any(name.startswith(block) for name in moved) for block in making)
    quiet = {path for path, module in tower.named_modules() if not module.training}
    assert not any(f"vision_tower.{path}.".startswith(inside) for path in quiet)
    assert {name.rpartition(".")[0] for name, p in tower.named_parameters() if not p.requires_grad} - {""} <= quiet | held(blocks)


@pytest.mark.parametrize("family", LAST)
def test_a_block_drawn_anew_starts_as_a_new_model_s_does(family: str) -> None:
    """The first stage of Ovis draws the last block of its encoder anew."""
    vision, blocks = LAST[family]
    torch.manual_seed(0)
    model = ArgusForConditionalGeneration(ArgusConfig(vision.to_dict(), {**LANGUAGE["llama"], "vocab_size": 64}))
    new = {name.removeprefix("model."): weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0).add_(0.5)
    old = {name.removeprefix("model."): weight.clone() for name, weight in model.named_parameters()}
    draw_anew(model, ["vision_tower.last1"])
    inside = tuple(f"vision_tower.{block}." for block in blocks)
    for name, weight in model.named_parameters():
        short = name.removeprefix("model.")
        if not short.startswith(inside):
            assert torch.equal(weight, old[short]), name
        elif new[short].unique().numel() == 1:  # norms, biases, scales
            assert torch.equal(weight, new[short]), name
        else:
            assert not torch.equal(weight, new[short]), name
            assert weight.mean().abs() < 0.1, name
            torch.testing.assert_close(weight.std(), new[short].std(), rtol=0.5, atol=0)


def test_what_nothing_draws_is_refused() -> None:
    model = Toy()
    model.register_parameter("logit_scale", nn.Parameter(torch.zeros(())))
    draw_anew(model, ["vision_tower"])
    with pytest.raises(UnsupportedError, match="'logit_scale' cannot be drawn anew"):
        draw_anew(model, ["logit_scale"])
    with pytest.raises(RecipeError, match="Did you mean 'vision_tower'"):
        draw_anew(model, ["vision_towr"])
    model.model["vision_tower"].register_parameter("scale", nn.Parameter(torch.ones(3)))
    with pytest.raises(UnsupportedError, match="nothing says how scale starts"):
        draw_anew(model, ["vision_tower"])


def held(blocks: list[str]) -> set[str]:
    """Paths of the modules around some modules, which are in training with them."""
    return {block.rsplit(".", cut)[0] for block in blocks for cut in range(1, block.count(".") + 1)}


def test_last_blocks_are_counted_from_the_layer_that_is_read() -> None:
    tower = copy.deepcopy(TOWERS["clip"])
    tower.final_norm = True  # as Ovis reads its tower: behind the last block
    model = nn.ModuleDict({"vision_tower": build_tower(tower)})
    set_trainable(model, train=["vision_tower.last2"])
    assert {name.split(".")[4] for name in learned(model)} == {"1", "2"}
    groups = parameter_groups(model, 1e-3, {"vision_tower": 1e-4, "vision_tower.last1": 1e-5}, 0.0)
    assert {group["lr"]: len(group["params"]) for group in groups} == {1e-4: 16, 1e-5: 16}
    with pytest.raises(RecipeError, match="come through 3 blocks, not through 4"):
        set_trainable(model, train=["vision_tower.last4"])
    with pytest.raises(RecipeError, match="'encoder' is no encoder whose blocks"):
        set_trainable(model, train=["encoder.last1"])
    with pytest.raises(RecipeError, match="no part 'vision_towr'"):
        set_trainable(model, train=["vision_towr.last1"])
