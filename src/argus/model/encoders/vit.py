"""A plain Vision Transformer that exposes what later parts want to read, at the price of reading it.

An Image is Worth 16x16 Words (arXiv 2010.11929), pre-norm, with a CLS token and learned positions as in CLIP (arXiv
2103.00020). The attention row of the CLS query, which CLS-guided pruning needs, is computed for the selected block alone
from its query row and keys, (B, heads, 1 + N), so no attention map is ever materialised for it.

    x_0 = [cls; W p + b] + E_pos
    x_l = x_{l-1} + Attn(LN(x_{l-1})) ;  x_l = x_l + MLP(LN(x_l))

Shapes: pixels (B, 3, H, W) -> tokens (B, N, C) with N = (H / patch) (W / patch). Positions are interpolated bicubically when
the grid differs from the one trained on, as CLIP's and DINOv2's loaders do.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.encoders.base import Tower, check_layer, in_passes
from argus.model.features import VisualFeatures


class ViTOptions(Options):
    """Sizes of a ViT made from nothing."""

    hidden_size: int = Field(192, ge=8, description="width of the tokens")
    num_hidden_layers: int = Field(6, ge=2, description="blocks")
    num_attention_heads: int = Field(3, ge=1, description="attention heads; divides hidden_size")
    intermediate_size: int = Field(768, ge=8, description="width of the MLP")
    image_size: int = Field(96, ge=8, description="side of the pictures in pixels")
    patch_size: int = Field(8, ge=1, description="side of a patch in pixels; divides image_size")
    feature_layer: int = Field(-2, description="layer whose states are the tokens; -2 is LLaVA's choice")


class ViTConfig(PretrainedConfig):
    """Sizes of a `ViT`.

    Args:
        hidden_size: width C.
        num_hidden_layers: blocks.
        num_attention_heads: heads; the head width is hidden_size / num_attention_heads.
        intermediate_size: width of the MLP.
        image_size: side in pixels that the position table was made for.
        patch_size: side of a patch in pixels.
        feature_layer: index into [embeddings, block 1, ..., block L] of the states given as tokens; -2, the next to last, is
            LLaVA's choice.
        image_mean, image_std: pixel normalisation the tower was trained with; read by the processor.
    """

    model_type = "argus_vit"

    def __init__(
        self,
        hidden_size: int = 192,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 3,
        intermediate_size: int = 768,
        image_size: int = 96,
        patch_size: int = 8,
        feature_layer: int = -2,
        layer_norm_eps: float = 1e-5,
        image_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        image_std: tuple[float, ...] = (0.25, 0.25, 0.25),
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.image_size = image_size
        self.patch_size = patch_size
        self.feature_layer = feature_layer
        self.layer_norm_eps = layer_norm_eps
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        super().__init__(**kwargs)


class ViTEncoder:
    """The registry's entry: options -> the config of a ViT."""

    Options = ViTOptions

    def __init__(self, options: ViTOptions) -> None:
        self.options = options

    def config(self) -> ViTConfig:
        """Config of the tower."""
        return ViTConfig(**self.options.model_dump())


class AttentionBlock(nn.Module):
    """The attention half of a pre-norm block, as two matmuls: on CPUs their backward pass is faster than the fused one.

    Args:
        width, heads: width C of the tokens; heads of width C / heads.
        eps: of the norm.
        bias: whether queries, keys and values have one.

    Raises:
        UnsupportedError: a width that does not divide into so many heads.
    """

    def __init__(self, width: int, heads: int, eps: float, bias: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise UnsupportedError(f"tokens of width {width} do not divide into {heads} attention heads")
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)  # (B, S, 3, h, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, h, S, d)
        return q, k, v

    def attend(self, x: Tensor) -> Tensor:
        """What attention adds to the tokens (B, S, C)."""
        q, k, v = self._heads(x)
        if x.is_cuda:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).flatten(2))

    def cls_row(self, x: Tensor) -> Tensor:
        """Attention of the CLS query on the patches for this block's input `x` (B, 1 + N, C): (B, heads, N)."""
        q, k, _ = self._heads(x)
        row = (q[:, :, :1] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)  # (B, h, 1, 1 + N)
        return row[:, :, 0, 1:]


class Block(AttentionBlock):
    """One pre-norm block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config.hidden_size, config.num_attention_heads, config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class ViT(Tower, PreTrainedModel):
    """Pixels (B, 3, H, W) -> `VisualFeatures`."""

    config_class = ViTConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vit"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        side = config.image_size // config.patch_size
        self.patch_embed = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position = nn.Parameter(torch.zeros(1, 1 + side * side, config.hidden_size))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.hidden_size, self.has_cls, self.depth = config.hidden_size, True, config.num_hidden_layers
        check_layer(config.feature_layer, config.num_hidden_layers)
        self.patch_size, self.image_size, self.feature_layer = config.patch_size, config.image_size, config.feature_layer
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ViT):
            nn.init.trunc_normal_(module.cls_token, std=0.02)
            nn.init.trunc_normal_(module.position, std=0.02)

    def trunk(self) -> nn.ModuleList:
        return self.blocks

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table for a grid of (rows, columns): (1, 1 + rows * columns, C)."""
        side = math.isqrt(self.position.shape[1] - 1)
        if grid == (side, side):
            return self.position
        table = self.position[:, 1:].view(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, side, side)
        table = F.interpolate(table.float(), size=grid, mode="bicubic", align_corners=False).to(self.position.dtype)
        return torch.cat([self.position[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W), normalised with the config's mean and std; H and W are multiples of the patch size.
            cls_attention: also give the CLS query's attention row of the block that made the tokens.
            hidden_states: also give the states of every layer.
            pooled: also give the last layer's CLS token behind the final norm.
        """
        x = self.patch_embed(pixel_values.to(self.patch_embed.weight.dtype))  # (B, C, gh, gw)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, N, C)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1) + self.positions(grid)
        depth = len(self.blocks)
        selected = self.config.feature_layer % (depth + 1)
        states, row = [x], None
        for index, block in enumerate(self.blocks, start=1):
            if index > selected and not (hidden_states or pooled):
                break
            if cls_attention and index == selected:
                row = cast(Block, block).cls_row(states[-1])
            states.append(block(states[-1]))
        out = states[selected]
        return VisualFeatures(
            tokens=out[:, 1:],
            grid=grid,
            cls=out[:, 0],
            prefix=out[:, :1],
            cls_attention=row,
            hidden_states=tuple(states) if hidden_states else None,
            pooled=self.norm(states[-1][:, 0]) if pooled else None,
        )


AutoConfig.register("argus_vit", ViTConfig, exist_ok=True)
AutoModel.register(ViTConfig, ViT, exist_ok=True)
