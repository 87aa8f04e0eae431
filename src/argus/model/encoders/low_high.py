"""Two encoders, one that looks at the picture small and one at it large: tokens of the first, maps of the second.

MG-LLaVA: Towards Multi-Granularity Visual Instruction Tuning (arXiv 2406.17770). A ViT reads the picture at 336 px, a
convolutional encoder at 768 px; what is made of the pair is the connector's affair (`mg_llava`).

    tokens       = E_low(bilinear(x, low size))          (B, N, C)
    feature_maps = E_high(x)                             (B, C_i, H_i, W_i) per stage, coarsest last

Shapes: pixels (B, 3, H, W) at the size of the large view. The small view is made of the normalised tensor, bilinearly and without
aligned corners, as published; each encoder gets pixels normalised with its own mean and deviation. An encoder that gives no
maps of its stages gives one, that of its tokens. CLS, attention rows and hidden states are those of the small view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.encoders.base import Tower, build_tower, in_passes, nested_config
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.encoders.transformers_tower import TransformersTower
from argus.model.features import VisualFeatures


class LowHighOptions(Options):
    """The two encoders and the size of the large view."""

    low: str | dict[str, dict[str, Any]] = Field(description="encoder of the small view: a stored model, or {name: options}")
    high: str | dict[str, dict[str, Any]] = Field(description="encoder of the large view")
    image_size: int | None = Field(None, ge=8, description="side of the large view in pixels; the high encoder's by default")


class LowHighConfig(PretrainedConfig):
    """Config of the pair.

    Args:
        encoder_configs: of the low and the high encoder.
        image_size: see `LowHighOptions`.
    """

    model_type = "argus_low_high"

    def __init__(
        self,
        encoder_configs: Sequence[PretrainedConfig | dict[str, Any]] = ({}, {}),
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        configs = [nested_config(given, "argus_vit") for given in encoder_configs]
        self.encoder_configs = [config.to_dict() for config in configs]
        self.image_size = image_size
        mean, std = pixel_statistics(configs[0])
        self.image_mean, self.image_std = list(mean), list(std)
        super().__init__(**{k: v for k, v in kwargs.items() if k not in ("image_mean", "image_std")})


class LowHighEncoder:
    """The registry's entry: options -> the config of the pair.

    Attributes:
        parts: the encoders inside.
    """

    Options = LowHighOptions

    def __init__(self, options: LowHighOptions) -> None:
        self.options = options
        self.parts = [options.low, options.high]

    def config(self, *encoders: PretrainedConfig) -> LowHighConfig:
        """Config of the tower around the encoders'."""
        return LowHighConfig(encoders, self.options.image_size)


class LowHigh(Tower, PreTrainedModel):
    """Pixels (B, 3, H, W) -> `VisualFeatures` with `feature_maps`.

    Attributes:
        map_widths: channels of each map.

    Raises:
        UnsupportedError: a size that does not hold whole patches of both, or that an encoder does not read.
    """

    config_class = LowHighConfig
    main_input_name = "pixel_values"
    base_model_prefix = "low_high"

    def __init__(self, config: LowHighConfig) -> None:
        super().__init__(config)
        configs = [nested_config(one, "argus_vit") for one in config.encoder_configs]
        self.towers = nn.ModuleList(build_tower(one) for one in configs)
        low, high = self._pair()
        self.image_size = config.image_size or high.image_size
        patch = low.patch_size * self.image_size / low.image_size
        fixed = isinstance(high, TransformersTower) and not high.any_size
        if patch != int(patch) or self.image_size % high.patch_size or (fixed and self.image_size != high.image_size):
            raise UnsupportedError(
                f"low_high: pictures of {self.image_size} px do not fit {low.image_size // low.patch_size} patches a side of the "
                f"low encoder and patches of {high.patch_size} px of the high one, which was made for {high.image_size} px"
            )
        self.patch_size, self.hidden_size = int(patch), low.hidden_size
        self.has_cls, self.depth = low.has_cls, low.depth
        self.map_widths: tuple[int, ...] = tuple(getattr(high, "map_widths", (high.hidden_size,)))
        self.statistics = [pixel_statistics(one) for one in configs]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The encoders draw their own."""

    def _pair(self) -> tuple[Any, Any]:
        return self.towers[0], self.towers[1]

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W), normalised with the low encoder's mean and std; H and W hold whole patches.
            cls_attention, hidden_states, pooled: also give those of the low encoder.
        """
        low, high = self._pair()
        grid = [side // self.patch_size for side in pixel_values.shape[-2:]]
        size = (grid[0] * low.patch_size, grid[1] * low.patch_size)
        small = F.interpolate(pixel_values.float(), size=size, mode="bilinear", align_corners=False).to(pixel_values.dtype)
        features = low(small, cls_attention=cls_attention, hidden_states=hidden_states, pooled=pooled)
        (mean, std), (own_mean, own_std) = (
            [pixel_values.new_tensor(v).view(1, 3, 1, 1) for v in pair] for pair in self.statistics
        )
        same = self.statistics[0] == self.statistics[1]
        large = high(pixel_values if same else (pixel_values * std + mean - own_mean) / own_std)
        maps = large.feature_maps or (large.tokens.transpose(1, 2).unflatten(2, large.grid),)  # (B, C_i, H_i, W_i)
        return replace(features, feature_maps=tuple(maps))


AutoConfig.register("argus_low_high", LowHighConfig, exist_ok=True)
AutoModel.register(LowHighConfig, LowHigh, exist_ok=True)
