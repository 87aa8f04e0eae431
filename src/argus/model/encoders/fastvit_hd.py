"""FastViTHD: five stages down to stride 64, so that large pictures give few tokens in little time.

FastVLM: Efficient Vision Encoding for Vision Language Models (arXiv 2412.13303), on FastViT (arXiv 2303.14189). Convolutions do
the work where the maps are large, attention where they are small; the branches that help training are folded away after it.

    stem     RepConv 3x3/2, depthwise 3x3/2, 1x1, each with GELU                                    stride 4
    mix      stages 1 to 3, of mixer blocks; each stage has twice the channels of the one before    strides 4, 8, 16
    attend   stages 4 and 5, of blocks that attend                                                  strides 32, 64
    out      GELU(SE(RepConv depthwise 3x3 to twice the channels))

Shapes: pixels (B, 3, H, W) -> tokens (B, N, 2 C_5) in raster order with N = (H / 64) (W / 64): 256 tokens of width 3072 at
1024 px. No CLS, no position table: any multiple of 64 works. `feature_maps` are the stages' outputs. The equations of the blocks
are in `argus.model.encoders.fastvit_blocks`.

Depths, widths and the missing small branch in the stem are those of the published code. The paper's plain FastViT with features
of all stages is `multi_scale`: earlier maps, pooled by means or by a depthwise convolution of kernel = stride (which the paper
leaves open), stand behind the output's channels. `reparameterise()` folds the branches; published weights are in that form, and
`published_weights` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from argus.core.errors import ModelError, UnsupportedError
from argus.core.registry import Options
from argus.model.encoders.base import Tower, in_passes
from argus.model.encoders.fastvit_blocks import (
    HEAD_WIDTH,
    SCALE_INIT,
    MapAttentionBlock,
    MixerBlock,
    Position,
    RepMixer,
    SqueezeExcite,
    Stage,
)
from argus.model.encoders.fastvit_names import published_weights
from argus.model.encoders.reparameterised import RepConv
from argus.model.features import VisualFeatures

MultiScale = Literal["none", "average", "depthwise"]

# depths, widths
VARIANTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((1, 1, 2, 2, 1), (16, 32, 64, 128, 256)),  # Argus's own, for CPUs
    "HD": ((2, 12, 24, 4, 2), (96, 192, 384, 768, 1536)),
}
EXPANSION = 2


class FastViTHDOptions(Options):
    """A published size, or one's own."""

    variant: Literal["tiny", "HD"] = Field("tiny", description="size; what is given below replaces parts of it")
    depths: tuple[int, ...] | None = Field(None, min_length=2, description="blocks per stage; the stride is 2 ** (stages + 1)")
    widths: tuple[int, ...] | None = Field(None, min_length=2, description="channels per stage")
    attention_stages: int = Field(2, ge=0, description="stages, counted from the last, whose blocks attend; widths in 32s there")
    image_size: int = Field(256, ge=8, description="side of the pictures in pixels, a multiple of the stride; published: 1024")
    multi_scale: MultiScale = Field("none", description="add the earlier stages' maps, pooled by means or by convolution")
    fused: bool = Field(False, description="new weights without branches, as a checkpoint's are: faster, and harder to train")
    checkpoint: str | None = Field(None, description="folder of a published LLaVA-FastViTHD model whose encoder is taken")

    @model_validator(mode="after")
    def _fits(self) -> FastViTHDOptions:
        depths, widths = self.depths or VARIANTS[self.variant][0], self.widths or VARIANTS[self.variant][1]
        if len(depths) != len(widths) or self.attention_stages > len(depths):
            raise ValueError(f"{len(depths)} depths, {len(widths)} widths, {self.attention_stages} attention stages do not match")
        if any(w % HEAD_WIDTH for w in widths[len(widths) - self.attention_stages :]):
            raise ValueError(f"stages that attend need widths that are multiples of {HEAD_WIDTH}")
        if any(after % before for before, after in pairwise(widths)):
            raise ValueError("each width must be a multiple of the one before")
        if self.image_size % 2 ** (len(depths) + 1):
            raise ValueError(f"image_size must be a multiple of the stride {2 ** (len(depths) + 1)}")
        return self


class FastViTHDConfig(PretrainedConfig):
    """Sizes of a `FastViTHD`.

    Args:
        depths, widths, attention_stages, image_size, multi_scale: see `FastViTHDOptions`.
        fused: whether the branches are folded.
        image_mean, image_std: pixel normalisation; none, as for the published weights.
    """

    model_type = "argus_fastvit_hd"

    def __init__(
        self,
        depths: Sequence[int] = VARIANTS["tiny"][0],
        widths: Sequence[int] = VARIANTS["tiny"][1],
        attention_stages: int = 2,
        image_size: int = 256,
        multi_scale: MultiScale = "none",
        fused: bool = False,
        image_mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        image_std: tuple[float, ...] = (1.0, 1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        self.depths, self.widths, self.attention_stages = list(depths), list(widths), attention_stages
        self.image_size, self.multi_scale, self.fused = image_size, multi_scale, fused
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        super().__init__(**kwargs)


class FastViTHDEncoder:
    """The registry's entry: options -> the config of a FastViTHD, and weights where they are stored."""

    Options = FastViTHDOptions

    def __init__(self, options: FastViTHDOptions) -> None:
        self.options = options

    def config(self) -> FastViTHDConfig:
        """Config of the tower."""
        sizes = dict(zip(("depths", "widths"), VARIANTS[self.options.variant], strict=True))
        given = self.options.model_dump(exclude={"variant", "checkpoint", "fused"}, exclude_none=True)
        return FastViTHDConfig(**{**sizes, **given}, fused=self.options.fused or self.options.checkpoint is not None)

    def weights(self) -> dict[str, Tensor] | None:
        """Weights of the checkpoint, if one is named.

        Raises:
            ModelError: the folder has no safetensors.
        """
        if self.options.checkpoint is None:
            return None
        files = sorted(Path(self.options.checkpoint).expanduser().glob("*.safetensors"))
        if not files:
            raise ModelError("no .safetensors file", where=self.options.checkpoint)
        stored: dict[str, Tensor] = {}
        for file in files:
            stored.update(load_file(file))
        return published_weights(stored, len(self.config().widths), self.options.attention_stages)


class FastViTHD(Tower, PreTrainedModel):
    """Pixels (B, 3, H, W) -> `VisualFeatures`."""

    config_class = FastViTHDConfig
    main_input_name = "pixel_values"
    base_model_prefix = "fastvit"
    _no_split_modules = ["MixerBlock", "MapAttentionBlock"]  # noqa: RUF012

    def __init__(self, config: FastViTHDConfig) -> None:
        super().__init__(config)
        widths, fused, first = config.widths, config.fused, config.widths[0]
        self.stem = nn.ModuleList(
            [
                RepConv(3, first, 3, 2, fused=fused),
                RepConv(first, first, 3, 2, first, fused=fused),
                RepConv(first, first, 1, fused=fused),
            ]
        )
        mixers = len(widths) - config.attention_stages
        self.stages = nn.ModuleList(
            Stage(widths[i - 1] if i else None, width, config.depths[i], i >= mixers, fused) for i, width in enumerate(widths)
        )
        out = EXPANSION * widths[-1]
        self.expand = RepConv(widths[-1], out, 3, groups=widths[-1], small=1, fused=fused)
        self.squeeze = SqueezeExcite(out)
        steps = [2 ** (len(widths) - 1 - i) for i in range(len(widths) - 1)]  # strides from each earlier stage to the last
        pools: dict[str, list[nn.Module]] = {
            "none": [],
            "average": [nn.AvgPool2d(step) for step in steps],
            "depthwise": [nn.Conv2d(w, w, s, s, groups=w, bias=False) for w, s in zip(widths, steps, strict=False)],
        }
        self.pools = nn.ModuleList(pools[config.multi_scale])
        self.hidden_size = out + (sum(widths[:-1]) if self.pools else 0)
        self.patch_size, self.image_size, self.has_cls = 2 ** (len(widths) + 1), config.image_size, False
        self.map_widths, self.depth = tuple(widths), 0
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, RepMixer | MixerBlock | MapAttentionBlock):
            for scale in module.parameters(recurse=False):
                nn.init.constant_(scale, SCALE_INIT)
            # The FFN has no weights of its own, and transformers asks only for layers that have some.
            convs = () if isinstance(module, RepMixer) else (module.ffn.depthwise, module.ffn.fc1, module.ffn.fc2)
            for conv in convs:
                nn.init.trunc_normal_(conv.weight, std=0.02)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def trunk(self) -> list[Any]:
        stages: list[Any] = list(self.stages)
        return [block for stage in stages for block in stage.blocks]

    @torch.no_grad()
    def reparameterise(self) -> None:
        """Fold the branches into single convolutions, in place: the same function of the pixels in evaluation mode."""
        for module in self.modules():
            if isinstance(module, RepConv | RepMixer | Position):
                module.reparameterise()
        self.config.fused = True

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W) in 0..1; H and W are multiples of the stride.
            cls_attention: refused; there is no CLS token.
            hidden_states: has no effect; stages are of different sizes, and given as `feature_maps`.
            pooled: also give the mean of the tokens.
        """
        if cls_attention:
            raise UnsupportedError("a FastViTHD has no CLS token, so there is no CLS attention row")
        if pixel_values.shape[2] % self.patch_size or pixel_values.shape[3] % self.patch_size:
            size = tuple(pixel_values.shape[2:])
            raise UnsupportedError(f"this FastViTHD reads sides that are multiples of {self.patch_size} px, not {size}")
        x = pixel_values.to(next(self.parameters()).dtype)
        for conv in self.stem:
            x = F.gelu(conv(x))  # (B, C_1, H / 4, W / 4)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = F.gelu(self.squeeze(self.expand(x)))  # (B, 2 C_5, H / 64, W / 64)
        x = torch.cat([x, *(pool(early) for pool, early in zip(self.pools, maps, strict=False))], 1)
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C)
        return VisualFeatures(
            tokens=tokens,
            grid=(x.shape[2], x.shape[3]),
            feature_maps=tuple(maps),
            pooled=tokens.mean(1) if pooled else None,
        )


AutoConfig.register("argus_fastvit_hd", FastViTHDConfig, exist_ok=True)
AutoModel.register(FastViTHDConfig, FastViTHD, exist_ok=True)
