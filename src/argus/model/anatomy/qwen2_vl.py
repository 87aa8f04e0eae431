"""Qwen2-VL: ViT without CLS, 2 x 2 patch merger, mRoPE; pictures of any size, and videos.

The tower reads all crops in one sequence, whose blocks keep crops apart, and holds a crop's patches in groups of 2 x 2 that
become one token, the groups in raster order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from argus.model.anatomy.base import Anatomy, Piece, VisualTokens, attention_of


class Qwen2VL(Anatomy):
    """Qwen2-VL (`Qwen2VLForConditionalGeneration`); each pair of video frames is a crop."""

    mrope = True
    connector_mixes = True

    @property
    def vision_tower(self) -> nn.Module:
        return self.root.visual

    @property
    def projector(self) -> nn.Module:
        return self.root.visual.merger

    @property
    def has_cls(self) -> bool:
        return False

    def visual_token_ids(self) -> tuple[int, ...]:
        return (int(self.config.image_token_id), int(self.config.video_token_id))

    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        merge = self.config.vision_config.spatial_merge_size
        pieces = []
        grids = [g for key in ("image_grid_thw", "video_grid_thw") if inputs.get(key) is not None for g in inputs[key]]
        for picture, (times, rows, columns) in enumerate(torch.stack(grids).tolist() if grids else []):
            pieces += [Piece(picture, t, (rows // merge, columns // merge)) for t in range(times)]
        return pieces

    def visual_tokens(self, inputs: Mapping[str, Any]) -> VisualTokens:
        images = 0 if inputs.get("image_grid_thw") is None else int(inputs["image_grid_thw"][:, 0].sum())
        pieces = self.pieces(inputs)
        return self.alternating(inputs["input_ids"], pieces[:images], pieces[images:])

    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        crops: list[Tensor] = []
        for pixels, grid in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
            if inputs.get(pixels) is not None:
                frames = torch.repeat_interleave(inputs[grid][:, 1] * inputs[grid][:, 2], inputs[grid][:, 0])
                crops += inputs[pixels].split(frames.tolist())
        return crops

    def tower_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        pixels = args[0] if args else kwargs["hidden_states"]
        return {"pixel_values": pixels, "image_grid_thw": args[1] if len(args) > 1 else kwargs["grid_thw"]}

    @property
    def features_module(self) -> nn.Module:
        return self.vision_tower

    def features(self, output: Any) -> Tensor:
        return output.pooler_output

    @property
    def encoder_attention(self) -> nn.Module:
        """Of the last block: each of them sees the whole crop."""
        tower: Any = self.vision_tower
        return attention_of(tower.blocks[-1])

    def patches_per_call(self, inputs: Mapping[str, Any], keys: int) -> int:
        return keys

    def token_scores(self, patch_scores: list[Tensor], inputs: Mapping[str, Any]) -> Tensor:
        """Mean over each merge group."""
        merge = self.config.vision_config.spatial_merge_size
        return super().token_scores(patch_scores, inputs).view(-1, merge * merge).mean(-1)
