"""ViTamin: published sizes, and its blocks against references written out by hand."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.encoders.vitamin import MBConv, ViTamin, ViTaminConfig
from tests.model.encoders.test_interface import VITAMIN

# Parameters of the published image towers in millions, with the projection to the joint width.
PUBLISHED = {"S": (384, 224, 22, 0.01), "B": (512, 224, 88, 0.01), "L": (768, 224, 333.3, 0.001), "XL": (1152, 256, 436.1, 0.001)}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters_of_the_published_sizes(variant: str) -> None:
    joint, side, millions, share = PUBLISHED[variant]
    config = build("encoder", "vitamin", {"variant": variant, "image_size": side}).config()
    with torch.device("meta"):
        tower = ViTamin(config)
    count = sum(p.numel() for p in tower.parameters()) + joint * config.hidden_size
    assert count / 1e6 == pytest.approx(millions, rel=share)


def test_tokens_at_the_published_sides() -> None:
    config = ViTaminConfig(**VITAMIN)
    with torch.device("meta"):
        tower = ViTamin(config)
        for side, tokens in ((224, 196), (256, 256), (336, 441), (384, 576)):
            assert tower(torch.empty(1, 3, side, side)).tokens.shape[1] == tokens == (side // 16) ** 2
        with pytest.raises(UnsupportedError, match=r"multiples of 16 px, not \(100, 96\)"):
            tower(torch.empty(1, 3, 100, 96))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def norm(x: np.ndarray, axis: int) -> np.ndarray:
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-6)


@pytest.mark.parametrize(("width", "out", "stride"), [(8, 8, 1), (8, 8, 2), (8, 16, 2)])
@torch.no_grad()
def test_mbconv_by_hand(width: int, out: int, stride: int) -> None:
    """Pixel by pixel: norm over channels, 1x1, GELU, 3x3 per channel, GELU, 1x1; averages leave the padding out."""
    torch.manual_seed(0)
    block, x = MBConv(width, out, stride, 1e-6), torch.randn(1, width, 6, 6)
    weights = {name: value.numpy() for name, value in block.state_dict().items()}
    a = (
        np.einsum("oc,chw->ohw", weights["expand.weight"][..., 0, 0], norm(x[0].numpy(), 0))
        + weights["expand.bias"][:, None, None]
    )
    a = np.pad(gelu(a), ((0, 0), (1, 1), (1, 1)))
    padded, side = np.pad(x[0].numpy(), ((0, 0), (1, 1), (1, 1))), 6 // stride
    inside = np.pad(np.ones((6, 6)), 1)
    y, short = np.zeros((out, side, side)), np.zeros((out, side, side))
    for i in range(side):
        for j in range(side):
            window = np.s_[stride * i : stride * i + 3, stride * j : stride * j + 3]
            middle = (a[:, *window] * weights["depthwise.weight"][:, 0]).sum((1, 2)) + weights["depthwise.bias"]
            y[:, i, j] = weights["project.weight"][..., 0, 0] @ gelu(middle) + weights["project.bias"]
            taken = padded[:, *window].sum((1, 2)) / inside[window].sum() if stride == 2 else x[0, :, i, j].numpy()
            if width != out:
                taken = weights["shortcut.weight"][..., 0, 0] @ taken + weights["shortcut.bias"]
            short[:, i, j] = taken
    torch.testing.assert_close(block(x)[0], torch.from_numpy(y + short).float(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_block_by_hand() -> None:
    """The gated MLP norms what the block has normed already."""
    torch.manual_seed(0)
    tower = ViTamin(ViTaminConfig(**VITAMIN)).eval()
    block, x = tower.blocks[1], torch.randn(1, 16, 32)
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    q, k, v = F.linear(
        F.layer_norm(x, (32,), block.norm1.weight, block.norm1.bias, 1e-6), block.qkv.weight, block.qkv.bias
    ).chunk(3, -1)
    heads = []
    for h in (np.s_[..., :16], np.s_[..., 16:]):
        heads.append(torch.softmax(q[h] @ k[h].mT / 4, -1) @ v[h])  # 4 = sqrt(16)
    x1 = x + block.proj(torch.cat(heads, -1))
    once = F.layer_norm(x1, (32,), block.norm2.weight, block.norm2.bias, 1e-6)
    twice = F.layer_norm(once, (32,), block.mlp_norm.weight, block.mlp_norm.bias, 1e-6)
    gate, value = block.w0(twice), block.w1(twice)
    expected = x1 + block.w2(0.5 * gate * (1 + torch.erf(gate / 2**0.5)) * value)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_positions_are_the_table_itself_at_its_own_size() -> None:
    tower = ViTamin(ViTaminConfig(**VITAMIN))
    assert tower.positions((4, 4)) is tower.position
    assert tower.positions((6, 9)).shape == (1, 54, 32)
    assert tower.positions((6, 9)).isfinite().all()
    flat = torch.ones_like(tower.position)
    tower.position.copy_(flat)
    torch.testing.assert_close(tower.positions((2, 8)), torch.ones(1, 16, 32))


def test_blocks_are_skipped_in_training_alone_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    tower = ViTamin(ViTaminConfig(**{**VITAMIN, "drop_path": 0.5}))
    assert [block.skip for block in tower.blocks] == [0, 0.5]
    block, branch = tower.blocks[1], torch.ones(4000, 1, 1)
    dropped = block.train()._drop(branch)
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}  # kept ones count 1 / (1 - 0.5)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert block.eval()._drop(branch) is branch


@torch.no_grad()
def test_maps_of_every_stage() -> None:
    tower = ViTamin(ViTaminConfig(**VITAMIN)).eval()
    found = tower(torch.randn(1, 3, 64, 96), hidden_states=True)
    assert [m.shape[1:] for m in found.feature_maps] == [(8, 16, 24), (16, 8, 12), (32, 4, 6)]
    assert len(found.hidden_states) == 3
    assert found.cls is None
    assert torch.equal(found.feature_maps[2][0, :, 1, 2], found.tokens[0, 1 * 6 + 2])
