"""Every tower of Argus's own keeps the contract of an encoder: one parametrised test per promise."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, PretrainedConfig

import argus
from argus.core.errors import UnsupportedError
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.dual_encoder import DualEncoder, DualEncoderConfig
from argus.model.encoders.base import TOWERS, Encoder, build_tower
from argus.model.encoders.comm import CommConfig
from argus.model.encoders.fastvit_hd import FastViTHDConfig
from argus.model.encoders.low_high import LowHighConfig
from argus.model.encoders.s2 import S2Config
from argus.model.encoders.vitamin import ViTaminConfig
from argus.model.image_processor import normalise
from argus.world.domain import DENSE_CLASSES
from tests.model import tiny as small
from tests.model.test_load import TEXT

VITAMIN = {"conv_widths": (8, 16), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64}
FASTVIT = {"depths": (1, 1, 1), "widths": (16, 32, 64), "attention_stages": 1, "image_size": 32}
CONFIGS: dict[str, PretrainedConfig] = {
    "argus_vit": small.TOWERS["vit"],
    "argus_s2": S2Config(small.TOWERS["vit"].to_dict()),
    "argus_vitamin": ViTaminConfig(**VITAMIN),
    "argus_fastvit_hd": FastViTHDConfig(**FASTVIT),
    "argus_comm": CommConfig([small.TOWERS["vit"], small.TOWERS["dinov2"]]),
    "argus_low_high": LowHighConfig([small.TOWERS["vit"], FastViTHDConfig(**{**FASTVIT, "image_size": 64})]),
}


@pytest.fixture(params=TOWERS)
def tower(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return build_tower(CONFIGS[request.param]).eval()


def picture(tower: Any, count: int = 2, height: float = 1, width: float = 1) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, int(height * tower.image_size), int(width * tower.image_size))


@torch.no_grad()
def test_tokens_lie_on_the_grid_that_the_sizes_say(tower: Any) -> None:
    found = tower(picture(tower), hidden_states=True, pooled=True)
    side = tower.image_size // tower.patch_size
    assert isinstance(tower, Encoder)
    assert found.grid == (side, side)
    assert found.tokens.shape == (2, side * side, tower.hidden_size)
    assert found.pooled.shape == (2, tower.hidden_size)
    assert (found.cls is not None) == tower.has_cls
    front = 0 if found.prefix is None else found.prefix.shape[1]
    if found.hidden_states is not None and hasattr(tower.config, "feature_layer"):
        assert torch.equal(found.hidden_states[tower.config.feature_layer][:, front:], found.tokens)


@torch.no_grad()
def test_what_else_is_asked_for_changes_no_token(tower: Any) -> None:
    pixels = picture(tower)
    plain = tower(pixels)
    assert plain.hidden_states is plain.pooled is plain.cls_attention is None
    asked = tower(pixels, hidden_states=True, pooled=True, cls_attention=tower.has_cls)
    assert torch.equal(plain.tokens, asked.tokens)


@torch.no_grad()
def test_a_picture_is_encoded_alike_in_every_batch(tower: Any) -> None:
    pixels = picture(tower, 3)
    torch.testing.assert_close(tower(pixels).tokens[1:2], tower(pixels[1:2]).tokens, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("tiles", [1, 2, 5])
def test_some_tiles_at_a_time_give_the_same_features(tower: Any, tiles: int) -> None:
    """All that a tower gives, in one call for who listens to it."""
    pixels, calls = picture(tower, 5), []
    asked = {"hidden_states": True, "pooled": True, "cls_attention": tower.has_cls}
    expected = tower(pixels, **asked)
    tower.register_forward_hook(lambda module, args, out: calls.append(out))
    found = tower(pixels, **asked, tiles_per_pass=tiles)
    assert [out is found for out in calls] == [True]
    for f in fields(expected):
        torch.testing.assert_close(getattr(found, f.name), getattr(expected, f.name), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pictures_that_are_not_square(tower: Any) -> None:
    found = tower(picture(tower, 1, 1, 2))
    rows, columns = tower.image_size // tower.patch_size, 2 * tower.image_size // tower.patch_size
    assert (found.grid, found.tokens.shape[1]) == ((rows, columns), rows * columns)
    assert found.tokens.isfinite().all()


@torch.no_grad()
def test_a_change_in_the_last_corner_moves_the_last_token_most(tower: Any) -> None:
    """Tokens are in raster order."""
    a = picture(tower, 1)
    b = a.clone()
    b[..., -tower.patch_size :, -tower.patch_size :] += 2
    moved = (tower(a).tokens - tower(b).tokens).norm(dim=-1)[0]
    assert int(moved.argmax()) == len(moved) - 1


@torch.no_grad()
def test_bf16(tower: Any) -> None:
    pixels = picture(tower, 1)
    expected = tower(pixels).tokens
    found = tower.bfloat16()(pixels.bfloat16()).tokens
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1 * float(expected.std()) + 0.05)


@torch.no_grad()
def test_saving_and_loading_is_bit_equal(tower: Any, tmp_path: Path) -> None:
    tower.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    pixels = picture(tower)
    assert type(again) is type(tower)
    assert torch.equal(again(pixels, pooled=True).tokens, tower(pixels).tokens)
    assert torch.equal(again(pixels, pooled=True).pooled, tower(pixels, pooled=True).pooled)


@torch.no_grad()
def test_a_frozen_tower_is_the_same_in_training(tower: Any) -> None:
    """No batch moves its norms and no block is skipped; a tower that learns is in training mode throughout."""
    pixels, before = picture(tower), {name: value.clone() for name, value in tower.state_dict().items()}
    expected = tower(pixels).tokens
    tower.requires_grad_(False).train()
    assert torch.equal(tower(pixels).tokens, expected)
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    assert all(module.training for module in tower.requires_grad_(True).train().modules())


def test_it_learns(tower: Any) -> None:
    """Colours of a two-by-two chessboard, read from the pooled state and from the tokens, in a few steps."""
    torch.manual_seed(0)
    colours = torch.randint(0, 2, (16, 4))
    pixels = (colours.view(16, 1, 2, 2).float() * 2 - 1).repeat(1, 3, 1, 1)
    pixels = torch.nn.functional.interpolate(pixels, size=(tower.image_size,) * 2)
    heads = torch.nn.ModuleList([torch.nn.Linear(tower.hidden_size, 4), torch.nn.Linear(tower.hidden_size, 4)])
    optimiser = torch.optim.AdamW([*tower.parameters(), *heads.parameters()], lr=3e-3)
    losses = []
    tower.train()
    for _ in range(12):
        found = tower(pixels, pooled=True)
        guess = heads[0](found.pooled) + heads[1](found.tokens.mean(1))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(guess, colours.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses


def dual(tower: Any) -> DualEncoder:
    torch.manual_seed(0)
    config = DualEncoderConfig(tower.config.to_dict(), {**TEXT, "max_position_embeddings": 16}, 8, DENSE_CLASSES)
    return DualEncoder(config)


BEHIND = ("0.norm.weight", "0.norm.bias", "layernorm.weight", "layernorm.bias", "mask_token")  # COMM reads blocks alone


def test_clip_training_through_a_dual_encoder(tower: Any, tmp_path: Path) -> None:
    """The loss is the symmetric cross-entropy, does not depend on the order of the pairs, and reaches every block."""
    model = dual(tower).eval()
    pixels, ids = picture(tower, 4), torch.randint(0, 50, (4, 6))

    def loss(order: list[int]) -> torch.Tensor:
        scores = model.similarity(model(pixels[order], ids[order]))
        target = torch.arange(4)
        return (torch.nn.functional.cross_entropy(scores, target) + torch.nn.functional.cross_entropy(scores.T, target)) / 2

    torch.testing.assert_close(loss([0, 1, 2, 3]), loss([2, 0, 3, 1]))
    loss([0, 1, 2, 3]).backward()
    without = [n for n, p in model.vision_tower.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    if tower.config.model_type == "argus_low_high":  # its second encoder gives maps alone, which only a connector reads
        without = [n for n in without if not n.startswith("towers.1.")]
    assert not [n for n in without if not n.endswith(BEHIND)]
    model.save_pretrained(tmp_path)
    again = DualEncoder.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(pixels).image_embeds, model(pixels).image_embeds)


def composed(tower: Any) -> tuple[ArgusForConditionalGeneration, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    ids = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = ArgusConfig(tower.config.to_dict(), {**small.LANGUAGE["llama"], **ids}, image_token_id=3)
    model = ArgusForConditionalGeneration(config).eval()
    count = (tower.image_size // tower.patch_size) ** 2
    text = torch.tensor([[1, *[3] * count, 7, 8], [0, 1, *[3] * count, 9]])
    return model, {"input_ids": text, "attention_mask": (text != 0).long(), "pixel_values": picture(tower)}


@torch.no_grad()
def test_a_composed_model_answers_and_saves(tower: Any, tmp_path: Path) -> None:
    model, inputs = composed(tower)
    said = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    model.save_pretrained(tmp_path)
    again = ArgusForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert torch.equal(again.generate(**inputs, max_new_tokens=3, do_sample=False), said)


@torch.no_grad()
def test_cls_scores_are_refused_where_there_is_no_cls(tower: Any) -> None:
    model, inputs = composed(tower)
    plain = model(**inputs).logits
    if tower.has_cls:
        with argus.attach(model, "fastervlm", keep=0.5):
            assert not torch.equal(model(**inputs).logits, plain)
        return
    with pytest.raises(UnsupportedError, match="no CLS"):
        tower(inputs["pixel_values"], cls_attention=True)
    with pytest.raises(UnsupportedError, match="neither a CLS token nor"), argus.attach(model, "fastervlm", keep=0.5):
        model(**inputs)
    with argus.attach(model, "random", keep=0.5):
        assert not torch.equal(model(**inputs).logits, plain)


def test_pixels_are_normalised_with_the_towers_own_statistics(tower: Any) -> None:
    grey = normalise(torch.full((1, 4, 4, 3), 255, dtype=torch.uint8).numpy(), tower.config.image_mean, tower.config.image_std)
    for channel in range(3):
        expected = (1 - tower.config.image_mean[channel]) / tower.config.image_std[channel]
        assert grey[0, channel].mean().item() == pytest.approx(expected, rel=1e-5)
