"""Qwen2.5-VL: as Qwen2-VL, with windowed attention in most blocks of its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from argus.model.anatomy.base import attention_of
from argus.model.anatomy.qwen2_vl import Qwen2VL


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`); each pair of video frames is a crop."""

    @property
    def encoder_attention(self) -> nn.Module:
        """Of the last block with full attention: maps of windows are not comparable with one another."""
        tower: Any = self.vision_tower
        return attention_of(tower.blocks[max(tower.fullatt_block_indexes)])

    def token_scores(self, patch_scores: list[Tensor], inputs: Mapping[str, Any]) -> Tensor:
        """Mean over each merge group. The tower holds groups in window order; they are put back into raster order."""
        tower: Any = self.vision_tower
        order, _ = get_vision_window_index(
            inputs["image_grid_thw"],
            spatial_merge_size=tower.spatial_merge_size,
            window_size=tower.window_size,
            patch_size=tower.patch_size,
        )
        groups = super().token_scores(patch_scores, inputs)
        return groups[order.argsort().to(groups.device)]
