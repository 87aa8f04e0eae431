"""ViTamin: two cheap convolution stages, then a Vision Transformer with gated MLPs at stride 16.

ViTamin: Designing Scalable Vision Models in the Vision-Language Era (arXiv 2404.02132). What few pixels decide is left to
convolutions, so the transformer gets features instead of raw patches and learns from fewer pictures.

    stem     conv3x3/2 -> LN, GELU -> conv3x3                                                stride 2, width w1
    MBConv   x' = shortcut(x) + conv1x1(GELU(dw3x3(GELU(conv1x1_{4 w}(LN(x))))))             strides 4 and 8, widths w1, w2
    entry    LN -> conv3x3/2 to D, + E_pos                                                   stride 16
    block    x = x + Attn(LN(x)) ;  x = x + GeGLU(LN(x)),   GeGLU(y) = W2(GELU(W0 LN(y)) * W1 LN(y)),  W0, W1: D -> 2 D
    pooled   LN(mean over tokens)

Shapes: pixels (B, 3, H, W) -> tokens (B, N, D) in raster order with N = (H / 16) (W / 16), so 336 px give 441 tokens. No CLS.

Depths (2, 4), the expansion of 4, the second norm inside the gated MLP and the averages without padding in the shortcut are
those of the published code, `VARIANTS` its configs; its L2 is L's tower beside a larger text tower. Positions are interpolated
bicubically with antialias for other sizes, as its loader does.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.encoders.base import Tower, check_layer, in_passes
from argus.model.encoders.vit import AttentionBlock
from argus.model.features import VisualFeatures

STRIDE = 16

# (w1, w2), D, blocks, heads
VARIANTS: dict[str, tuple[tuple[int, int], int, int, int]] = {
    "tiny": ((24, 48), 144, 5, 3),  # Argus's own, for CPUs
    "S": ((64, 128), 384, 14, 6),
    "B": ((128, 256), 768, 14, 12),
    "L": ((160, 320), 1024, 31, 16),
    "XL": ((192, 384), 1152, 32, 16),
}


class ViTaminOptions(Options):
    """A published size, or one's own."""

    variant: Literal["tiny", "S", "B", "L", "XL"] = Field("tiny", description="size; what is given below replaces parts of it")
    conv_widths: tuple[int, int] | None = Field(None, description="widths w1, w2 of the convolution stages")
    hidden_size: int | None = Field(None, ge=8, description="width D of the tokens")
    num_hidden_layers: int | None = Field(None, ge=2, description="transformer blocks")
    num_attention_heads: int | None = Field(None, ge=1, description="attention heads; divides hidden_size")
    image_size: int = Field(
        96, ge=STRIDE, multiple_of=STRIDE, description="side of the pictures in pixels; published: 224 to 384"
    )
    feature_layer: int = Field(-2, description="layer whose states are the tokens; -2 is LLaVA's choice")
    drop_path: float = Field(0.1, ge=0, lt=1, description="share of samples that skip the last block; rises from 0 at the first")


class ViTaminConfig(PretrainedConfig):
    """Sizes of a `ViTamin`.

    Args:
        conv_widths, conv_depths: widths w1, w2 and blocks of the convolution stages.
        hidden_size, num_hidden_layers, num_attention_heads: of the transformer.
        image_size: side in pixels that the position table was made for.
        feature_layer: index into [embeddings, block 1, ..., block L] of the states given as tokens.
        drop_path: see `ViTaminOptions`.
        image_mean, image_std: pixel normalisation; CLIP's, as for the published weights.
    """

    model_type = "argus_vitamin"

    def __init__(
        self,
        conv_widths: tuple[int, int] = VARIANTS["tiny"][0],
        conv_depths: tuple[int, int] = (2, 4),
        hidden_size: int = VARIANTS["tiny"][1],
        num_hidden_layers: int = VARIANTS["tiny"][2],
        num_attention_heads: int = VARIANTS["tiny"][3],
        image_size: int = 96,
        feature_layer: int = -2,
        drop_path: float = 0.1,
        layer_norm_eps: float = 1e-6,
        image_mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN),
        image_std: tuple[float, ...] = tuple(OPENAI_CLIP_STD),
        **kwargs: Any,
    ) -> None:
        self.conv_widths, self.conv_depths = list(conv_widths), list(conv_depths)
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.image_size, self.feature_layer, self.drop_path = image_size, feature_layer, drop_path
        self.layer_norm_eps = layer_norm_eps
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        super().__init__(**kwargs)


class ViTaminEncoder:
    """The registry's entry: options -> the config of a ViTamin."""

    Options = ViTaminOptions

    def __init__(self, options: ViTaminOptions) -> None:
        self.options = options

    def config(self) -> ViTaminConfig:
        """Config of the tower."""
        names = ("conv_widths", "hidden_size", "num_hidden_layers", "num_attention_heads")
        sizes = dict(zip(names, VARIANTS[self.options.variant], strict=True))
        return ViTaminConfig(**{**sizes, **self.options.model_dump(exclude={"variant"}, exclude_none=True)})


class ChannelNorm(nn.LayerNorm):
    """Layer norm of each pixel's channels: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MBConv(nn.Module):
    """Inverted bottleneck with layer norm: (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(self, width: int, out: int, stride: int, eps: float) -> None:
        super().__init__()
        middle = max(8, int(4 * out + 4) // 8 * 8)  # a multiple of 8
        self.norm = ChannelNorm(width, eps=eps)
        self.expand = nn.Conv2d(width, middle, 1)
        self.depthwise = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle)
        self.project = nn.Conv2d(middle, out, 1)
        self.pool = nn.AvgPool2d(3, stride, 1, count_include_pad=False) if stride > 1 else nn.Identity()
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.depthwise(F.gelu(self.expand(self.norm(x)))))
        return self.shortcut(self.pool(x)) + self.project(y)


class GatedBlock(AttentionBlock):
    """Pre-norm block whose MLP is gated, and normed again inside.

    Args:
        skip: share of samples for which, in training, a branch adds nothing; the others' is scaled up to keep the mean.
    """

    def __init__(self, config: ViTaminConfig, skip: float) -> None:
        super().__init__(config.hidden_size, config.num_attention_heads, config.layer_norm_eps)
        width = config.hidden_size
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.w0, self.w1 = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.w2 = nn.Linear(2 * width, width)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._drop(self.attend(x))
        y = self.mlp_norm(self.norm2(x))
        return x + self._drop(self.w2(F.gelu(self.w0(y)) * self.w1(y)))

    def _drop(self, branch: Tensor) -> Tensor:
        if not self.training or not self.skip:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.skip
        return branch * (keep / (1 - self.skip)).to(branch.dtype)


class ViTamin(Tower, PreTrainedModel):
    """Pixels (B, 3, H, W) -> `VisualFeatures`."""

    config_class = ViTaminConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vitamin"
    _no_split_modules = ["GatedBlock", "MBConv"]  # noqa: RUF012

    def __init__(self, config: ViTaminConfig) -> None:
        super().__init__(config)
        (w1, w2), (d1, d2), eps, width = config.conv_widths, config.conv_depths, config.layer_norm_eps, config.hidden_size
        stem = (nn.Conv2d(3, w1, 3, 2, 1), ChannelNorm(w1, eps=eps), nn.GELU(), nn.Conv2d(w1, w1, 3, 1, 1))
        self.stem = nn.Sequential(*stem)
        self.stage1 = nn.Sequential(*(MBConv(w1, w1, 1 if i else 2, eps) for i in range(d1)))
        self.stage2 = nn.Sequential(*(MBConv(w2 if i else w1, w2, 1 if i else 2, eps) for i in range(d2)))
        self.entry = nn.Sequential(ChannelNorm(w2, eps=eps), nn.Conv2d(w2, width, 3, 2, 1))
        side, depth = config.image_size // STRIDE, config.num_hidden_layers
        self.position = nn.Parameter(torch.zeros(1, side * side, width))
        self.blocks = nn.ModuleList(GatedBlock(config, config.drop_path * i / max(depth - 1, 1)) for i in range(depth))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.hidden_size, self.has_cls, self.patch_size, self.image_size = width, False, STRIDE, config.image_size
        self.map_widths, self.depth, self.feature_layer = (*config.conv_widths, width), depth, config.feature_layer
        check_layer(config.feature_layer, depth)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ViTamin):
            nn.init.trunc_normal_(module.position, std=0.02)

    def trunk(self) -> nn.ModuleList:
        return self.blocks

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table for a grid of (rows, columns): (1, rows * columns, D)."""
        side = math.isqrt(self.position.shape[1])
        if grid == (side, side):
            return self.position
        table = self.position.view(1, side, side, -1).permute(0, 3, 1, 2).float()  # (1, D, side, side)
        table = F.interpolate(table, size=grid, mode="bicubic", antialias=True).to(self.position.dtype)
        return table.flatten(2).transpose(1, 2)

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W), normalised with the config's mean and std; H and W are multiples of 16.
            cls_attention: refused; there is no CLS token.
            hidden_states: also give the states of every layer.
            pooled: also give the mean of the last layer's tokens behind the final norm.
        """
        if cls_attention:
            raise UnsupportedError("a ViTamin has no CLS token, so there is no CLS attention row")
        if pixel_values.shape[2] % STRIDE or pixel_values.shape[3] % STRIDE:
            raise UnsupportedError(
                f"a ViTamin reads sides that are multiples of {STRIDE} px, not {tuple(pixel_values.shape[2:])}"
            )
        coarse = self.stage1(self.stem(pixel_values.to(self.position.dtype)))  # (B, w1, H / 4, W / 4)
        fine = self.stage2(coarse)  # (B, w2, H / 8, W / 8)
        x = self.entry(fine)  # (B, D, H / 16, W / 16)
        grid = (x.shape[2], x.shape[3])
        states = [x.flatten(2).transpose(1, 2) + self.positions(grid)]  # (B, N, D)
        depth = len(self.blocks)
        selected = self.config.feature_layer % (depth + 1)
        for block in self.blocks[: depth if hidden_states or pooled else selected]:
            states.append(block(states[-1]))
        tokens = states[selected]
        return VisualFeatures(
            tokens=tokens,
            grid=grid,
            hidden_states=tuple(states) if hidden_states else None,
            feature_maps=(coarse, fine, tokens.transpose(1, 2).unflatten(2, grid)),
            pooled=self.norm(states[-1].mean(1)) if pooled else None,
        )


AutoConfig.register("argus_vitamin", ViTaminConfig, exist_ok=True)
AutoModel.register(ViTaminConfig, ViTamin, exist_ok=True)
