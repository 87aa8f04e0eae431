"""Blocks of FastViT's stages: depthwise convolutions where maps are large, attention where they are small.

FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization (arXiv 2303.14189), in the form of FastVLM (arXiv
2412.13303).

    between  GELU(RepConv depthwise 7x7/2 + 3x3/2, wider), GELU(RepConv 1x1)
    mixer    x = x + s (RepConv_dw3x3(x) - BN(x)) ;  x = x + s' FFN(x)
    attend   x = x + dw7x7(x) once ;  x = x + s Attn(LN(x)) ;  x = x + s' FFN(x)
    FFN      conv1x1(GELU(conv1x1_{4 C}(BN(dw7x7(x)))))
    SE       x sigmoid(conv1x1(ReLU(conv1x1_{C/16}(mean x))))

Shapes: maps (B, C, H, W) throughout; a stage gives (B, C', H / 2, W / 2), but for the first, which keeps the size.

The 1e-5 that layer scales start from, heads of 32 and the squeeze to 1/16 are those of the published code, as is the unfused
norm of the FFN. `reparameterise()` makes a mixer or a position one convolution (see `argus.model.encoders.reparameterised`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from argus.model.encoders.reparameterised import RepConv, convolution, folded, unit_kernel
from argus.model.encoders.vit import AttentionBlock

HEAD_WIDTH, SCALE_INIT, SQUEEZE = 32, 1e-5, 16


class RepMixer(nn.Module):
    """x + s (RepConv(x) - BN(x)), all depthwise: one depthwise 3x3 convolution when fused."""

    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.fused = nn.Conv2d(width, width, 3, 1, 1, groups=width) if fused else None
        if not fused:
            self.conv, self.norm = RepConv(width, width, 3, groups=width, small=1), nn.BatchNorm2d(width)
            self.scale = nn.Parameter(torch.full((width, 1, 1), SCALE_INIT))

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is not None:
            return self.fused(x)
        return x + self.scale * (self.conv(x) - self.norm(x))

    def reparameterise(self) -> None:
        """Become one convolution; does nothing where it is one."""
        if self.fused is not None:
            return
        width = len(self.scale)
        unit = unit_kernel(width, width, 3, self.scale)
        (kernel, bias), (same, shift) = self.conv.kernel_and_bias(), folded(unit, self.norm)
        scale = self.scale.double()
        self.fused = convolution(
            unit + scale[..., None] * (kernel - same), scale.flatten() * (bias - shift), 1, width, self.scale
        )
        del self.conv, self.norm, self.scale


class Position(nn.Module):
    """Conditional position encoding x + dw7x7(x): one depthwise 7x7 convolution when fused."""

    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.conv: nn.Conv2d | None = None if fused else conv
        self.fused: nn.Conv2d | None = conv if fused else None

    def forward(self, x: Tensor) -> Tensor:
        return self.fused(x) if self.fused is not None else x + self.conv(x)  # type: ignore[misc]

    def reparameterise(self) -> None:
        """Become one convolution; does nothing where it is one."""
        if self.conv is None:
            return
        width, weight, bias = self.conv.out_channels, self.conv.weight, self.conv.bias
        assert bias is not None
        kernel = unit_kernel(width, width, 7, weight) + weight.double()
        self.conv, self.fused = None, convolution(kernel, bias, 1, width, weight)


class ConvFFN(nn.Module):
    """Depthwise 7x7, norm, and a two-layer MLP per pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, 1, 3, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.fc1, self.fc2 = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(self.depthwise(x)))))


class MixerBlock(nn.Module):
    """RepMixer and FFN."""

    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.mixer, self.ffn = RepMixer(width, fused), ConvFFN(width)
        self.scale = nn.Parameter(torch.full((width, 1, 1), SCALE_INIT))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(x)
        return x + self.scale * self.ffn(x)


class MapAttentionBlock(AttentionBlock):
    """Attention over all positions of a map, and FFN."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width // HEAD_WIDTH, eps=1e-5, bias=False)
        self.ffn = ConvFFN(width)
        self.scale1 = nn.Parameter(torch.full((width, 1, 1), SCALE_INIT))
        self.scale2 = nn.Parameter(torch.full((width, 1, 1), SCALE_INIT))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.attend(x.flatten(2).transpose(1, 2))  # (B, H W, C)
        x = x + self.scale1 * seen.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.scale2 * self.ffn(x)


class Stage(nn.Module):
    """Downsampling (but for the first stage), position (where blocks attend), blocks."""

    def __init__(self, before: int | None, width: int, depth: int, attends: bool, fused: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        if before is not None:
            self.down.append(RepConv(before, width, 7, 2, before, small=3, fused=fused))
            self.down.append(RepConv(width, width, 1, fused=fused))
        self.position = Position(width, fused) if attends else nn.Identity()
        self.blocks = nn.Sequential(*(MapAttentionBlock(width) if attends else MixerBlock(width, fused) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.down:
            x = F.gelu(conv(x))
        return self.blocks(self.position(x))


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole map holds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, width // SQUEEZE, 1), nn.Conv2d(width // SQUEEZE, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
