"""Convolutions that are several branches in training and one convolution afterwards.

RepVGG (arXiv 2101.03697), An Improved One Millisecond Mobile Backbone (MobileOne, arXiv 2206.04040), RepLKNet (arXiv
2203.06717). A convolution and the batch norm behind it are one affine map, and so is their sum with others:

    BN(W * x) = (g / s) W * x + (b - m g / s),   s = sqrt(var + eps)
    sum_i BN_i(W_i * x) = (sum_i W_i') * x + sum_i b_i'

with every kernel padded with zeros to the largest, and the identity as a unit kernel. The two forms agree in evaluation mode,
where batch norm is affine. Kernels are summed in fp64, so that what is left is the rounding of the two forms themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RepConv(nn.Module):
    """Sum of a convolution, a smaller one and the identity, each behind its batch norm: (B, C, H, W) -> (B, C', H', W').

    Args:
        width, out: channels C and C'.
        kernel, stride, groups: of the convolution; padding keeps the size up to the stride.
        small: kernel of the smaller branch, if there is one.
        fused: make the single convolution at once.

    The identity branch is there where C = C' and the stride is 1.
    """

    def __init__(
        self, width: int, out: int, kernel: int, stride: int = 1, groups: int = 1, small: int | None = None, fused: bool = False
    ) -> None:
        super().__init__()
        self.width, self.out, self.kernel, self.stride, self.groups = width, out, kernel, stride, groups
        self.branches = nn.ModuleList()
        self.skip: nn.BatchNorm2d | None = None
        self.fused: nn.Conv2d | None = None
        if fused:
            self.fused = nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups)
            return
        for size in (kernel, small):
            if size is not None:
                conv = nn.Conv2d(width, out, size, stride, size // 2, groups=groups, bias=False)
                self.branches.append(nn.Sequential(conv, nn.BatchNorm2d(out)))
        if width == out and stride == 1:
            self.skip = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is not None:
            return self.fused(x)
        y = sum(branch(x) for branch in self.branches)
        return y if self.skip is None else y + self.skip(x)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """Kernel (C', C / groups, k, k) and bias (C',) of the sum, in fp64."""
        parts = []
        for branch in self.branches:
            conv, norm = branch[0], branch[1]  # type: ignore[index]
            pad = (self.kernel - conv.kernel_size[0]) // 2
            parts.append(folded(F.pad(conv.weight.double(), [pad] * 4), norm))
        if self.skip is not None:
            parts.append(folded(unit_kernel(self.width, self.groups, self.kernel, self.skip.weight), self.skip))
        return torch.stack([k for k, _ in parts]).sum(0), torch.stack([b for _, b in parts]).sum(0)

    def reparameterise(self) -> None:
        """Become one convolution; does nothing where it is one."""
        if self.fused is not None:
            return
        self.fused = convolution(*self.kernel_and_bias(), self.stride, self.groups, self.branches[0][0].weight)  # type: ignore[index]
        self.branches, self.skip = nn.ModuleList(), None


def folded(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The kernel (C', ...) and bias (C',) of a bias-free convolution with the batch norm behind it, in fp64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return kernel.double() * gain.view(-1, 1, 1, 1), norm.bias.double() - norm.running_mean.double() * gain


def unit_kernel(width: int, groups: int, kernel: int, like: Tensor) -> Tensor:
    """The kernel (C, C / groups, k, k) whose convolution is the identity, in fp64."""
    unit = torch.zeros(width, width // groups, kernel, kernel, dtype=torch.float64, device=like.device)
    channel = torch.arange(width, device=like.device)
    unit[channel, channel % (width // groups), kernel // 2, kernel // 2] = 1
    return unit


def convolution(kernel: Tensor, bias: Tensor, stride: int, groups: int, like: Tensor) -> nn.Conv2d:
    """A convolution with these weights, in the dtype and on the device of `like`."""
    out, width, size, _ = kernel.shape
    conv = nn.Conv2d(width * groups, out, size, stride, size // 2, groups=groups, device=like.device, dtype=like.dtype)
    with torch.no_grad():
        conv.weight.copy_(kernel)
        assert conv.bias is not None
        conv.bias.copy_(bias)
    return conv
