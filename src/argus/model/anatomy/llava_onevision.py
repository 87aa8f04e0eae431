"""LLaVA-OneVision: AnyRes pictures as in LLaVA-NeXT, several pictures without tiles, and videos; SigLIP without CLS.

What stands in the prompt:

- one picture: the small view, then the tiles as one large grid without padding, a break behind every line. A grid of much more
  than `anyres_max_9` tiles is shrunk, so that its tokens are mixtures across tiles: then it is one crop with its own grid.
- several pictures in a prompt: of each one crop and a break.
- a video: of each frame a crop of half the rows and columns, and a break behind the last.

Packing and shrinking are the model's own, run on the numbers of cells and on the scores of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from argus.model.anatomy.base import Listener, Piece, VisualTokens
from argus.model.anatomy.llava_next import BREAK, LlavaNext, Overheard, Packed, numbers

UNLIMITED = "anyres_max_1000000"  # tiles: a packing that never shrinks


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shrunk(Packed):
    """Crops whose tokens are mixtures of neighbouring patches.

    Args:
        shrink: scores of patches (tiles, rows * columns, 1) -> (size, 1) of the tokens, breaks left out.
        shown: tiles whose pixels stand for the crops in the prompt.
    """

    shrink: Callable[[Tensor], Tensor]
    shown: list[int]

    def chosen(self, scores: Tensor) -> Tensor:
        return self.shrink(scores.view(self.tiles, -1, 1))[:, 0]


class LlavaOnevision(LlavaNext):
    """LLaVA-OneVision (`LlavaOnevisionForConditionalGeneration`); views, tiles, shrunk grids and video frames are crops."""

    connector_mixes = True  # where grids are shrunk and frames pooled

    def visual_token_ids(self) -> tuple[int, ...]:
        return (int(self.config.image_token_id), int(self.config.video_token_id))

    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        """One per picture, then one per video; one per crop for the vision tower's own inputs."""
        pieces = super().pieces(inputs) if inputs.get("pixel_values") is not None else []
        videos = inputs.get("pixel_values_videos")
        return pieces if videos is None else [*pieces, *self.frames(videos, first=len(pieces))]

    def visual_tokens(self, inputs: Mapping[str, Any]) -> VisualTokens:
        pieces = self.pieces(inputs)
        images = 0 if inputs.get("pixel_values") is None else len(inputs["image_sizes"])
        return self.alternating(inputs["input_ids"], pieces[:images], pieces[images:])

    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        crops = super().vision_pixels(inputs) if inputs.get("pixel_values") is not None else []
        videos = inputs.get("pixel_values_videos")
        return crops if videos is None else [*crops, *videos.flatten(0, 1)]

    def on_features(self, seen: Callable[[Tensor, list[Piece] | None], None]) -> Listener:
        def filming(output: Any, pixel_values_videos: Tensor, *args: Any, **kwargs: Any) -> None:
            seen(output.pooler_output.flatten(0, 1), self.frames(pixel_values_videos))

        return _Both(super().on_features(seen), Overheard(self.root, "get_video_features", filming))

    def tiles(self, inputs: Mapping[str, Any]) -> list[int]:
        together = inputs.get("batch_num_images")  # pictures per prompt
        if together is None:
            return super().tiles(inputs)
        alone = torch.repeat_interleave(together == 1, together).tolist()
        # As in the model, pictures may be given without the others of their prompt, and the count is the prompt's.
        return [count if only else 1 for count, only in zip(super().tiles(inputs), alone, strict=False)]

    def packed(self, image_sizes: Tensor, tiles: Sequence[int]) -> list[Piece]:
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        cells = numbers(tiles, side)
        whole, shrunk = self.packing(cells, image_sizes, UNLIMITED), self.packing(cells, image_sizes)
        pieces: list[Piece] = []
        for picture, (source, as_is, count) in enumerate(zip(shrunk, whole, tiles, strict=True)):
            if len(source) == len(as_is):
                crops, unbroken = count * ((side, side),), int(count > 1)
                number = source[:, 0].long()
                pieces.append(Packed(picture, 0, (side, side), source=number, tiles=count, crops=crops, unbroken=unbroken))
                continue
            breaks = source[:, 0] == BREAK
            rows = int(breaks.sum())
            grids = ((side, side), (rows, (len(source) - side * side) // rows - 1))
            number = torch.where(breaks, BREAK, (~breaks).cumsum(0) - 1)
            shrink = self._shrinking(image_sizes[picture : picture + 1], ~breaks)
            pieces.append(Shrunk(picture, 0, (side, side), source=number, tiles=count, crops=grids, shrink=shrink, shown=[0, 1]))
        return pieces

    def packing(self, values: Sequence[Tensor], image_sizes: Tensor, limit: str | None = None) -> Sequence[Tensor]:
        newline = torch.full((1,), BREAK, dtype=values[0].dtype, device=values[0].device)
        pack = type(self.root).pack_image_features  # not the instance's, which somebody may overhear
        limit = limit or self.config.vision_aspect_ratio
        return pack(self.root, values, image_sizes, image_newline=newline, vision_aspect_ratio=limit)[0]

    def frames(self, pixels: Tensor, first: int = 0) -> list[Piece]:
        """One piece per video (frames, 3, H, W) of (videos, frames, 3, H, W): its pooled frames and the break behind them."""
        videos, frames = pixels.shape[:2]
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        high = wide = -(-side // 2)
        source = torch.tensor([*range(frames * high * wide), BREAK])
        return [
            Shrunk(
                first + video,
                0,
                (side, side),
                source=source,
                tiles=frames,
                crops=frames * ((high, wide),),
                unbroken=0,
                shrink=lambda scores: self.root.apply_pooling(scores).flatten(0, 1),
                shown=[*range(frames)],
            )
            for video in range(videos)
        ]

    def _shrinking(self, image_size: Tensor, inner: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda scores: self.packing([scores], image_size)[0][inner.to(scores.device)]


class _Both:
    """Two listeners as one."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def remove(self) -> None:
        """Stops both."""
        for listener in self.listeners:
            listener.remove()
