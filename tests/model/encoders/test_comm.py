"""COMM: the merge written out, one normalisation per tower, grids of different size, names of layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPVisionConfig, Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.registry import build
from argus.model.compose import compose
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.encoders.comm import Comm, CommConfig
from argus.model.encoders.s2 import S2Config
from tests.model.test_load import language
from tests.model.tiny import LANGUAGE, SMALL, TOWERS


def comm(*towers: Any, branches: list[dict[str, Any]] | None = None) -> Comm:
    torch.manual_seed(0)
    configs = [TOWERS[t] if isinstance(t, str) else t for t in towers or ("clip", "dinov2")]
    tower = Comm(CommConfig(configs, branches or [{}] * len(configs))).eval()
    with torch.no_grad():
        for merge in tower.merges:
            for weight in merge.weights.values():
                weight.normal_()
    return tower


def test_layers_and_parameters_of_the_paper() -> None:
    """All 24 layers of CLIP ViT-L and 19 to 24 of DINOv2 ViT-L: 30 maps of 1024 x 1024, an MLP of ratio 8, width 2048."""
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14}
    with torch.device("meta"):
        tower = Comm(CommConfig([CLIPVisionConfig(**large, intermediate_size=4096), Dinov2Config(**large)]))
    assert [merge.layers for merge in tower.merges] == [list(range(1, 25)), list(range(19, 25))]
    maps = sum(p.numel() for merge in tower.merges for part in (merge.norms, merge.maps) for p in part.parameters())
    assert maps == 30 * (1024 * 1024 + 1024 + 2 * 1024)  # 31.6 M
    assert sum(p.numel() for p in tower.merges[1].align.parameters()) / 1e6 == pytest.approx(16.8, rel=0.01)
    assert tower.hidden_size == 2048
    assert tower.image_size // tower.patch_size == 24


@torch.no_grad()
def test_the_merge_is_the_sum_over_layers_as_the_blocks_give_them() -> None:
    """Written out, and accumulated by hooks while the towers run."""
    tower, pixels = comm(), torch.randn(2, 3, 32, 32)
    running = [torch.zeros(2, 16, 32) for _ in range(2)]
    hooks = []
    for t, (inner, merge) in enumerate(zip(tower.towers, tower.merges, strict=True)):
        for number, block in enumerate(inner.blocks(), start=1):
            if number in merge.layers:

                def add(_: Any, __: Any, out: Any, t: int = t, name: str = f"layer_{number}", merge: Any = merge) -> None:
                    state = (out[0] if isinstance(out, tuple) else out)[:, 1:]  # without CLS
                    running[t] += merge.weights[name] * merge.maps[name](merge.norms[name](state))

                hooks.append(block.register_forward_hook(add))
    found = tower(pixels)
    assert len(hooks) == 3 + 1  # layers 1 to 3 of the first, the deepest of the second
    torch.testing.assert_close(found.tokens[..., :32], running[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.tokens[..., 32:], tower.merges[1].align(running[1]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_one_hot_weights_and_identities_are_plain_layer_selection() -> None:
    tower = comm("clip", branches=[{}])
    pixels, (merge,) = torch.randn(1, 3, 32, 32), tower.merges
    for name, weight in merge.weights.items():
        weight.fill_(float(name == "layer_2"))
        merge.maps[name].weight.copy_(torch.eye(32))
        merge.maps[name].bias.zero_()
        merge.norms[name] = torch.nn.Identity()
    plain = comm("clip", branches=[{"merge": "select", "layers": [2]}])
    plain.towers.load_state_dict(tower.towers.state_dict())
    expected = tower.towers[0](pixels, hidden_states=True).hidden_states[2][:, 1:]
    assert torch.equal(plain(pixels).tokens, expected)
    torch.testing.assert_close(tower(pixels).tokens, expected)
    own = comm("clip", branches=[{"merge": "select"}])
    own.towers.load_state_dict(tower.towers.state_dict())
    assert torch.equal(own(pixels).tokens, tower.towers[0](pixels).tokens)


@torch.no_grad()
def test_the_mean_of_layers() -> None:
    tower, pixels = comm("clip", branches=[{"merge": "mean", "layers": [1, 3]}]), torch.randn(1, 3, 32, 32)
    states = tower.towers[0](pixels, hidden_states=True).hidden_states
    torch.testing.assert_close(tower(pixels).tokens, (states[1] + states[3])[:, 1:] / 2)


@torch.no_grad()
def test_without_the_second_half_of_the_projector_it_is_the_first_tower_alone() -> None:
    torch.manual_seed(0)
    text = {**LANGUAGE["llama"], "vocab_size": 64}
    both = ArgusForConditionalGeneration(ArgusConfig(comm().config.to_dict(), text, connector={"linear": {}})).eval().model
    alone = ArgusForConditionalGeneration(
        ArgusConfig(comm("clip", branches=[{}]).config.to_dict(), text, connector={"linear": {}})
    ).model.eval()
    alone.vision_tower.towers[0].load_state_dict(both.vision_tower.towers[0].state_dict())
    alone.vision_tower.merges[0].load_state_dict(both.vision_tower.merges[0].state_dict())
    (weight,) = (p for p in both.multi_modal_projector.parameters() if p.ndim == 2)
    weight[:, 32:] = 0
    for mine, theirs in zip(alone.multi_modal_projector.parameters(), both.multi_modal_projector.parameters(), strict=True):
        mine.copy_(theirs[:, :32] if theirs.ndim == 2 else theirs)
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(both.get_image_features(pixels), alone.get_image_features(pixels))


@torch.no_grad()
def test_every_tower_gets_its_own_normalisation() -> None:
    """A grey picture, 0.5 everywhere, as each family wants it."""
    tower, seen = comm("clip", "dinov2"), []
    for inner in tower.towers:
        inner.register_forward_pre_hook(lambda _, args: seen.append(args[0].mean((0, 2, 3))))
    clip_mean, clip_std = torch.tensor(tower.config.image_mean), torch.tensor(tower.config.image_std)
    grey = ((0.5 - clip_mean) / clip_std).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    tower(grey)
    torch.testing.assert_close(seen[0], (0.5 - clip_mean) / clip_std)
    torch.testing.assert_close(seen[1], (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]))


@torch.no_grad()
def test_grids_of_another_size_are_resampled_to_the_first_ones() -> None:
    fine = Dinov2Config(mlp_ratio=2, **{**SMALL, "patch_size": 4})
    tower, pixels = comm("clip", fine, branches=[{}, {"align": 0}]), torch.randn(2, 3, 32, 32)
    found = tower(pixels)
    assert (found.grid, found.tokens.shape) == ((4, 4), (2, 16, 64))
    second = tower.merges[1](tower.towers[1](tower.normalised(pixels, 1), hidden_states=True))
    maps = second.transpose(1, 2).view(2, 32, 8, 8)
    expected = F.interpolate(maps, size=(4, 4), mode="bilinear").flatten(2).transpose(1, 2)
    torch.testing.assert_close(found.tokens[..., 32:], expected)
    other = CLIPVisionConfig(intermediate_size=48, **{**SMALL, "image_size": 64})
    with pytest.raises(UnsupportedError, match=r"first tower's pictures have 32 px, but .* 'clip_vision_model' reads 64 px"):
        comm("dinov2", other)
    with pytest.raises(UnsupportedError, match="patches of 12 px"):
        comm("clip", Dinov2Config(mlp_ratio=2, **{**SMALL, "patch_size": 12, "image_size": 36}))


def test_registers_are_dropped_and_missing_layers_are_refused() -> None:
    registers = Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=3, **SMALL)
    assert comm("clip", registers)(torch.randn(1, 3, 32, 32)).tokens.shape == (1, 16, 64)
    with pytest.raises(UnsupportedError, match="there is no layer 4 in a tower of type 'dinov2' with 1 to 3"):
        comm("clip", "dinov2", branches=[{}, {"layers": [3, 4]}])
    fast = build("encoder", "fastvit_hd", {"image_size": 64}).config()
    with pytest.raises(UnsupportedError, match=r"gives no layers to merge\. Use merge: select"):
        comm("clip", fast)
    with pytest.raises(RecipeError, match="select takes one layer, not 2"):
        build("encoder", "comm", {"towers": [{"encoder": {"vit": {}}, "merge": "select", "layers": [1, 2]}]})


def test_a_patch_of_a_shuffling_tower_is_at_its_place_in_every_layer() -> None:
    """MAE shuffles inside; its first layers, merged, still know which patch moved."""
    tower, a = comm("mae", branches=[{"merge": "select", "layers": [1]}]), torch.randn(1, 3, 32, 32)
    b = a.clone()
    b[..., 24:, 24:] += 1
    with torch.no_grad():
        moved = (tower(a).tokens - tower(b).tokens).norm(dim=-1)[0]
    assert int(moved.argmax()) == 15


def test_weights_of_layers_are_saved_by_name_and_can_be_read(tmp_path: Path) -> None:
    tower = comm("clip", "dinov2", branches=[{"layers": [1, 3]}, {"layers": [2]}])
    assert [sorted(weights) for weights in tower.layer_weights()] == [[1, 3], [2]]
    assert [w for weights in CommConfig([TOWERS["clip"]] * 2).branches for w in weights["layers"]] == [1, 2, 3, 3]
    tower.save_pretrained(tmp_path)
    again = Comm.from_pretrained(tmp_path).eval()
    assert again.layer_weights() == tower.layer_weights()
    other = comm("clip", "dinov2", branches=[{"layers": [1, 2]}, {"layers": [2]}])
    with pytest.raises(RuntimeError, match=r"(?s)layer_2.*Unexpected.*layer_3"):
        other.load_state_dict(tower.state_dict())
    fresh = Comm(CommConfig([TOWERS["clip"]], [{"layers": [1, 2]}]))
    assert fresh.layer_weights() == [{1: 0.5, 2: 0.5}]


def test_weights_of_layers_stay_in_single_precision(tmp_path: Path) -> None:
    tower = comm("clip", "dinov2")
    tower.save_pretrained(tmp_path)
    half = Comm.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert half.layer_weights() == tower.layer_weights()
    assert half.merges[0].maps["layer_1"].weight.dtype == torch.bfloat16
    pixels = torch.randn(1, 3, 32, 32)
    found = half(pixels.bfloat16()).tokens
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), tower(pixels).tokens, rtol=0.1, atol=0.1)


@torch.no_grad()
def test_stored_towers_of_any_kind_by_recipe(tmp_path: Path) -> None:
    """A stored DINOv2 and a new two-scale ViT in one composed model."""
    torch.manual_seed(1)
    dino = Dinov2Model(TOWERS["dinov2"]).eval()
    dino.save_pretrained(tmp_path / "dino")
    scales = {"s2": {"encoder": {"vit": {**SMALL, "image_size": 16}}, "scales": [1, 2], "output_scale": 1}}
    spec = {"towers": [{"encoder": str(tmp_path / "dino"), "merge": "select"}, {"encoder": scales, "layers": [3], "align": 2}]}
    model, processor = compose({"language_model": language(tmp_path / "lm", "llama"), "encoder": {"comm": spec}})
    pixels = torch.randn(1, 3, 32, 32)
    found = model.eval().model.encode_images(pixels)
    assert found.tokens.shape == (1, 16, 32 + 64)
    assert torch.equal(found.tokens[..., :32], dino(pixels, output_hidden_states=True).hidden_states[-2][:, 1:])
    assert processor.image_processor.image_mean == [0.485, 0.456, 0.406]
    assert CommConfig([S2Config(TOWERS["vit"].to_dict())], [{}]).branches[0]["layers"] == [1, 2, 3]
