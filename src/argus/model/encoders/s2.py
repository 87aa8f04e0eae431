"""S2: one encoder at several scales of the picture, joined on the channels.

When Do We Not Need Larger Vision Models? (arXiv 2403.13043). The picture is resized to each scale and cut into crops of the
size that the encoder was trained on; the crops' feature maps are stitched together, pooled to one grid and concatenated.
More detail is seen, and the language model gets as many tokens as before.

    f_k = merge_{n_k}(E(split_{n_k}(bicubic(x, s_k m)))),  n_k = ceil(s_k)
    f   = [area(f_1 -> grid); ...; area(f_K -> grid)]

Shapes: pixels (B, 3, H, W) at the side of the largest scale -> tokens (B, N, D K) with the N of the scale `output_scale`. Crops
lie on the batch axis crop-major: (n n B, 3, H / n, W / n). Prefix tokens and CLS are means over a scale's crops.

The published code asks for scales relative to its input; here they are relative to the side m that the encoder was trained on,
so that the pixels have the detail of the largest scale by default. `even` is its main branch (crops of side s m / n, to be
divisible), `resize` and `pad` its branch for any shape (crops of side m). There a `resize`d map keeps its stretched grid; here
it is pooled to the picture's own. The CLS row, which the paper has not, is the mean over scales of the crops' rows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.encoders.base import Tower, build_tower, in_passes, nested_config
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.encoders.transformers_tower import TransformersTower
from argus.model.features import VisualFeatures

Split = Literal["even", "resize", "pad"]


class S2Options(Options):
    """An encoder and the scales it looks at."""

    encoder: str | dict[str, dict[str, Any]] = Field(description="the encoder: a stored model, or {name: options}")
    scales: tuple[float, ...] = Field((1.0, 2.0), min_length=1, description="sides relative to the encoder's; channels in order")
    image_size: int | None = Field(None, ge=1, description="side of the pictures in pixels; that of the largest scale by default")
    output_scale: int = Field(0, description="index of the scale whose grid the tokens have; -1, the largest, costs tokens")
    split: Split = Field("even", description="crops of equal side; or of the encoder's side, stretched or padded to fit")
    split_forward: bool = Field(False, description="encode the crops one by one: slower, less memory")

    @model_validator(mode="after")
    def _fits(self) -> S2Options:
        if min(self.scales) <= 0:
            raise ValueError(f"scales must be positive, not {min(self.scales):g}")
        if not -len(self.scales) <= self.output_scale < len(self.scales):
            raise ValueError(f"output_scale: there is no scale {self.output_scale} among {len(self.scales)}")
        return self


class S2Config(PretrainedConfig):
    """Config of the encoder and the scales.

    Args:
        encoder_config: config of the encoder.
        scales, image_size, output_scale, split, split_forward: see `S2Options`.
    """

    model_type = "argus_s2"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        encoder_config: PretrainedConfig | dict[str, Any] | None = None,
        scales: tuple[float, ...] = (1.0, 2.0),
        image_size: int | None = None,
        output_scale: int = 0,
        split: Split = "even",
        split_forward: bool = False,
        **kwargs: Any,
    ) -> None:
        self.encoder_config = nested_config(encoder_config, "argus_vit")
        self.scales, self.image_size, self.output_scale = list(scales), image_size, output_scale
        self.split, self.split_forward = split, split_forward
        mean, std = pixel_statistics(self.encoder_config)
        self.image_mean, self.image_std = list(mean), list(std)
        super().__init__(**{k: v for k, v in kwargs.items() if k not in ("image_mean", "image_std")})


class S2Encoder:
    """The registry's entry: options -> the config of the wrapper.

    Attributes:
        parts: the encoder inside.
    """

    Options = S2Options

    def __init__(self, options: S2Options) -> None:
        self.options = options
        self.parts = [options.encoder]

    def config(self, encoder: PretrainedConfig) -> S2Config:
        """Config of the tower around an encoder's."""
        return S2Config(encoder, **self.options.model_dump(exclude={"encoder"}))


class S2(Tower, PreTrainedModel):
    """Pixels (B, 3, H, W) -> `VisualFeatures`.

    Raises:
        UnsupportedError: scales that give crops which the encoder cannot read, or a grid that no whole patch fits.
    """

    config_class = S2Config
    main_input_name = "pixel_values"
    base_model_prefix = "s2"

    def __init__(self, config: S2Config) -> None:
        super().__init__(config)
        self.towers = nn.ModuleList([build_tower(config.encoder_config)])
        tower: Any = self.towers[0]
        self.base: int = tower.image_size
        self.image_size = config.image_size or round(max(config.scales) * self.base)
        for scale in config.scales:
            side = round(scale * self.base)
            self._check(side, -(-side // self.base), f"scale {scale:g}")
        patch = tower.patch_size * self.image_size / (config.scales[config.output_scale] * self.base)
        if patch != int(patch):
            raise UnsupportedError(f"s2: the tokens' patches would have a side of {patch:g} px; choose another image_size")
        self.patch_size = int(patch)
        self.hidden_size = tower.hidden_size * len(config.scales)
        self.has_cls, self.depth = tower.has_cls, tower.depth
        self.post_init()

    def _check(self, side: int, count: int, what: str) -> None:
        """Even crops must be whole, and of a side that the encoder reads."""
        tower: Any = self.towers[0]
        crop = side / count
        fixed = isinstance(tower, TransformersTower) and not tower.any_size
        if self.config.split == "even" and (crop % tower.patch_size or (fixed and crop != self.base)):
            wanted = f"{self.base} px" if fixed else f"multiples of {tower.patch_size} px"
            raise UnsupportedError(
                f"s2: {what} cuts {side} px into {count} crops of {crop:g} px, but the encoder reads {wanted}.",
                hint="Use split: resize or split: pad, whose crops have the encoder's side.",
            )

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W), normalised as the encoder was trained; H and W hold whole patches.
            cls_attention: also give the CLS row, mean over scales.
            hidden_states: also give the states of every layer, joined like the tokens.
            pooled: also give the pooled states, mean over a scale's crops.
        """
        height, width = pixel_values.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        scales = [self._scale(pixel_values, scale, grid, cls_attention, hidden_states, pooled) for scale in self.config.scales]
        rows = [s.cls_attention for s in scales if s.cls_attention is not None]
        layers = [s.hidden_states for s in scales if s.hidden_states is not None]
        return VisualFeatures(
            tokens=torch.cat([s.tokens for s in scales], -1),
            grid=grid,
            cls=_cat([s.cls for s in scales]),
            prefix=_cat([s.prefix for s in scales]),
            cls_attention=torch.stack(rows).mean(0) if rows else None,
            hidden_states=tuple(torch.cat(layer, -1) for layer in zip(*layers, strict=True)) if layers else None,
            pooled=_cat([s.pooled for s in scales]),
        )

    def _scale(
        self, pixels: Tensor, scale: float, grid: tuple[int, int], cls_attention: bool, hidden_states: bool, pooled: bool
    ) -> VisualFeatures:
        """Features of one scale on the common grid."""
        ratio = scale * self.base / self.image_size
        sides = [round(side * ratio) for side in pixels.shape[-2:]]
        rows, columns = (-(-side // self.base) for side in sides)
        if self.config.split == "even":
            for side, count in zip(sides, (rows, columns), strict=True):
                self._check(side, count, f"a picture of {pixels.shape[-2]} x {pixels.shape[-1]} px")
            x = resize(pixels, (sides[0], sides[1]))
        elif self.config.split == "resize":
            x = resize(resize(pixels, (sides[0], sides[1])), (rows * self.base, columns * self.base))
        else:
            x = F.pad(resize(pixels, (sides[0], sides[1])), (0, columns * self.base - sides[1], 0, rows * self.base - sides[0]))
        crops = split(x, rows, columns)  # (n B, 3, h, w)
        chunks = crops.split(len(pixels)) if self.config.split_forward else (crops,)
        wanted = {"cls_attention": cls_attention, "hidden_states": hidden_states, "pooled": pooled}
        found = [self.towers[0](chunk, **wanted) for chunk in chunks]
        gh, gw = found[0].grid
        kept = (rows * gh, columns * gw)  # rows and columns of the stitched map that show the picture
        if self.config.split == "pad":
            kept = (-(-sides[0] * gh // self.base), -(-sides[1] * gw // self.base))

        def stitch(tokens: Tensor) -> Tensor:  # (n B, N, D) -> (B, grid, D)
            maps = tokens.transpose(1, 2).unflatten(2, (gh, gw))  # (n B, D, gh, gw)
            return pool(merge(maps, rows, columns)[:, :, : kept[0], : kept[1]], grid).flatten(2).transpose(1, 2)

        def mean(x: Tensor) -> Tensor:  # (n B, ...) -> (B, ...)
            return x.unflatten(0, (rows * columns, -1)).mean(0)

        tokens, prefix = torch.cat([f.tokens for f in found]), _cat([f.prefix for f in found], 0)
        row, states = _cat([f.cls_attention for f in found], 0), None
        if row is not None:  # each crop's row is a share of one; pooling takes the mean over cells where attention adds up
            cells = kept[0] * kept[1] / (grid[0] * grid[1])
            row = stitch(row.transpose(1, 2)).transpose(1, 2) * (cells / (rows * columns))
        if hidden_states and found[0].hidden_states is not None:
            front = found[0].hidden_states[0].shape[1] - gh * gw
            layers = [torch.cat(layer) for layer in zip(*(f.hidden_states for f in found), strict=True)]
            states = tuple(torch.cat([mean(s[:, :front]), stitch(s[:, front:])], 1) for s in layers)
        cls, whole = _cat([f.cls for f in found], 0), _cat([f.pooled for f in found], 0)
        return VisualFeatures(
            tokens=stitch(tokens),
            grid=grid,
            cls=None if cls is None else mean(cls),
            prefix=None if prefix is None else mean(prefix),
            cls_attention=row,
            hidden_states=states,
            pooled=None if whole is None else mean(whole),
        )


def split(x: Tensor, rows: int, columns: int) -> Tensor:
    """Cut (B, C, H, W) into a chessboard: (rows * columns * B, C, H / rows, W / columns), crop-major in raster order."""
    x = x.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # (B, C, rows, h, columns, w)
    return x.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def merge(x: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `split`: (rows * columns * B, C, h, w) -> (B, C, rows * h, columns * w)."""
    x = x.unflatten(0, (rows, columns, -1))  # (rows, columns, B, C, h, w)
    return x.permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic to (height, width), computed in fp32; the same picture where it has this size already."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x.float(), size=size, mode="bicubic", align_corners=False).to(x.dtype)


def pool(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Area interpolation (adaptive average pooling) of (B, D, h, w) to a grid, computed in fp32."""
    if tuple(x.shape[-2:]) == grid:
        return x
    return F.interpolate(x.float(), size=grid, mode="area").to(x.dtype)


def _cat(parts: list[Tensor | None], dim: int = -1) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there, dim) if there else None


AutoConfig.register("argus_s2", S2Config, exist_ok=True)
AutoModel.register(S2Config, S2, exist_ok=True)
