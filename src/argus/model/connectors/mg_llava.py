"""MG-LLaVA: Towards Multi-Granularity Visual Instruction Tuning (arXiv 2406.17770): fine maps under tokens, tokens of boxes.

A second encoder sees the picture large. Its last map is added to the tokens of the first by a gated convolution, which costs no
token; and each detected box becomes one token behind the picture's, pooled from the maps of all its stages.

    L' = L + P_l GELU(DW7x7(L))          H = P_h GELU(C(M_S))          L: tokens on their grid, M_s: map of stage s
    g  = W_2 GELU(W_1 mean[L' ; H])      F = L' + tanh(g) H            one gate per picture
    v  = MLP(F)                          o = MLP_box(mean over the box of [M_1; ...; M_S])

P_l and P_h start at zero, so at first F = L: the model is LLaVA. Encoder: `low_high`. Shapes: tokens (B, N, C), maps
(B, C_s, H_s, W_s), boxes (B, K, 4) relative to the tile -> (B, N, D) and (O, D). Language model and boxes know no names, no
places and no scores of each other; object tokens keep the order of the boxes.

Sizes are the published code's: kernel 7, gate 2C -> C/2 -> 1, RoIAlign with 56 bins on the maps enlarged to the first stage's
size (7 bins where the last map alone is read), the last map resampled to the tokens' grid where that differs. The paper has the
gated sum; the code's other ways to join are kept for its ablation, `none` leaves the large view to the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.model.connectors.base import ConnectorContext
from argus.model.connectors.box_pool import box_pool
from argus.model.connectors.mlp import MLP, MLPOptions
from argus.model.features import VisualFeatures


class MGLLaVAOptions(MLPOptions):
    """How the two views are joined, and what a box is read from."""

    fusion: Literal["sum", "concat_gate", "concat", "raw", "none"] = Field(
        "sum", description="gated sum; L' and H side by side, with or without the gate; L and the last map side by side; L alone"
    )
    box_features: Literal["all", "levels", "last"] = Field(
        "all", description="stages side by side; each mapped to `level_width` and added; or the last stage"
    )
    objects: bool = Field(True, description="a token per box; without them boxes are not read")
    bins: int = Field(56, ge=1, description="bins per side of a box on several stages")
    last_bins: int = Field(7, ge=1, description="bins per side of a box on the last stage alone")
    level_width: int = Field(1024, ge=1, description="width of the stages' sum, for box_features: levels")


class ConvGate(nn.Module):
    """L (B, N, C) and a map (B, C_S, H, W) -> L' and H (B, N, C) and the gate (B, 1, 1)."""

    def __init__(self, width: int, map_width: int) -> None:
        super().__init__()
        self.low_conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.low_proj = nn.Conv2d(width, width, 1)
        self.high_conv = nn.Conv2d(map_width, map_width, 1)
        self.high_proj = nn.Conv2d(map_width, width, 1)
        self.gate_1 = nn.Conv2d(2 * width, max(width // 2, 1), 1)
        self.gate_2 = nn.Conv2d(max(width // 2, 1), 1, 1)
        for conv in (self.low_conv, self.high_conv, self.gate_1, self.gate_2):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        for conv in (self.low_proj, self.high_proj):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B, C, h, w) of both views on one grid."""
        low = low + self.low_proj(F.gelu(self.low_conv(low)))
        high = self.high_proj(F.gelu(self.high_conv(high)))  # (B, C, h, w)
        whole = torch.cat([low, high], 1).mean((2, 3), keepdim=True)  # (B, 2C, 1, 1)
        return low, high, self.gate_2(F.gelu(self.gate_1(whole)))  # gate (B, 1, 1, 1)


class MGLLaVA(MLP):
    """Conv-Gate fusion in front of LLaVA's MLP, and the tokens of boxes."""

    Options: ClassVar[type[MGLLaVAOptions]] = MGLLaVAOptions
    options: MGLLaVAOptions

    def __init__(self, options: MGLLaVAOptions, *, vision_width: int, text_width: int, map_widths: Sequence[int] | None) -> None:
        if map_widths is None:
            raise UnsupportedError(
                "mg_llava joins two views of the picture, and this encoder gives one.", hint="Use the encoder 'low_high'."
            )
        last, width = map_widths[-1], vision_width
        joined = {"concat_gate": 2 * width, "concat": 2 * width, "raw": width + last}.get(options.fusion, width)
        super().__init__(options, vision_width=joined, text_width=text_width)
        self.mixes_tokens = self.mixes_tokens or options.fusion not in ("raw", "none")
        self.reads_boxes = options.objects
        self.fusion = ConvGate(width, last) if options.fusion not in ("raw", "none") else None
        if options.objects:
            read = {"all": sum(map_widths), "levels": options.level_width, "last": last}[options.box_features]
            if options.box_features == "levels":
                self.level_maps = nn.ModuleList(nn.Linear(one, read) for one in map_widths)
            self.box_linear_1 = nn.Linear(read, text_width)
            self.box_linear_2 = nn.Linear(text_width, text_width)

    def adopt(self, stored: Mapping[str, Tensor]) -> list[str]:
        """Boxes start from the same weights as the picture's tokens, where the maps they are read from are as wide."""
        return super().adopt({**stored, **{f"box_{name}": weight for name, weight in stored.items()}})

    def fuse(self, features: VisualFeatures) -> Tensor:
        """F (B, N, C) of both views."""
        if self.options.fusion == "none":
            return features.tokens
        assert features.feature_maps is not None
        low, high = features.tokens.transpose(1, 2).unflatten(2, features.grid), features.feature_maps[-1]  # (B, C, h, w)
        if high.shape[-2:] != low.shape[-2:]:
            high = F.interpolate(high.float(), size=low.shape[-2:], mode="bilinear", align_corners=False).to(high.dtype)
        if self.fusion is None:
            found = torch.cat([low, high], 1)
        else:
            low, high, gate = self.fusion(low, high)
            if self.options.fusion != "concat":
                high = gate.tanh() * high
            found = low + high if self.options.fusion == "sum" else torch.cat([low, high], 1)
        return found.flatten(2).transpose(1, 2).contiguous()

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        return self.project(self.fuse(features), features.grid)

    def objects(self, features: VisualFeatures, boxes: Tensor) -> Tensor:
        if not self.options.objects:
            return super().objects(features, boxes)
        maps = features.feature_maps
        assert maps is not None
        if self.options.box_features == "last":
            pooled = box_pool(maps[-1], boxes, self.options.last_bins)  # (B, K, C_S)
        elif self.options.box_features == "all":
            size = (maps[0].shape[2], maps[0].shape[3])
            pooled = torch.cat([box_pool(one, boxes, self.options.bins, size) for one in maps], -1)  # (B, K, sum of C_s)
        else:
            dtype = self.box_linear_1.weight.dtype
            each = [box_pool(one, boxes, self.options.bins).to(dtype) for one in maps]
            pooled = torch.stack([one(x) for one, x in zip(self.level_maps, each, strict=True)]).sum(0)
        real = pooled[boxes[..., 0] >= 0].to(self.box_linear_1.weight.dtype)  # (O, C)
        return self.box_linear_2(F.gelu(self.box_linear_1(real)))
