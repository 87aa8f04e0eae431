"""LLaVA-NeXT as transformers writes it: a picture is a small view of itself and tiles of it at a higher resolution (AnyRes).

In the prompt stand the tokens of the small view, then those of the tiles, put together to one large grid whose padding is cut
away and whose every line ends in a break (`image_newline`):

    view            tiles 1, 2 of 2 x 3, top row padded away
    v v v           1 1 1 2 2 2 |
    v v v

Each view and tile is a crop with its own grid. Where a crop's tokens are in the prompt is not computed here: the model's
own packing is run on their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from argus.core.errors import UnsupportedError
from argus.model.anatomy.base import Crop, Listener, Piece, VisualTokens
from argus.model.anatomy.llava import Llava

BREAK = -1  # source of a line break


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Packed(Piece):
    """All crops of a picture, packed; the small view is tile 0.

    Args:
        source: (size,) for each placeholder tile * rows * columns + cell, or BREAK.
        tiles: how many crops it is made of.
    """

    source: Tensor
    tiles: int

    @property
    def size(self) -> int:
        return len(self.source)

    @property
    def patches(self) -> int:
        return self.tiles * self.grid[0] * self.grid[1]

    def chosen(self, scores: Tensor) -> Tensor:
        inner = self.source[self.source != BREAK].sort().values
        return scores[inner.to(scores.device)]


class LlavaNext(Llava):
    """LLaVA-NeXT (`LlavaNextForConditionalGeneration`); the small view and every tile are crops."""

    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        """One per picture; one per tile for the vision tower's own inputs, which do not say how tiles belong together."""
        if inputs.get("image_sizes") is None:
            return super().pieces(inputs)
        return self.packed(inputs["image_sizes"])

    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        pixels = inputs["pixel_values"]
        if pixels.ndim == 4:
            return list(pixels)
        return [
            tile for picture, count in zip(pixels, self._tiles(inputs["image_sizes"]), strict=True) for tile in picture[:count]
        ]

    def on_features(self, seen: Callable[[Tensor, list[Piece] | None], None]) -> Listener:
        return _PackingListener(self, seen)

    def locate(self, mask: Tensor, pieces: Sequence[Piece]) -> VisualTokens:
        item, column = mask.nonzero(as_tuple=True)
        total = sum(p.size for p in pieces)
        if total != len(item):
            raise UnsupportedError(f"the prompt has {len(item)} visual tokens, its pictures give {total}.")
        packed = [p for p in pieces if isinstance(p, Packed)]
        starts = torch.tensor([0, *(p.size for p in packed)], device=mask.device).cumsum(0)[:-1]
        owners = item[starts].tolist()
        crops: list[Crop] = []
        numbers: dict[int, dict[int, int]] = {}
        sources, views = [], []
        for piece, owner in zip(packed, owners, strict=True):
            seen = numbers.setdefault(owner, {})
            image = seen.setdefault(piece.picture, len(seen))
            area = piece.grid[0] * piece.grid[1]
            source = piece.source.to(mask.device)
            sources.append(torch.where(source == BREAK, BREAK, source + len(crops) * area))
            views.append((source != BREAK) & (source < area))
            crops += [Crop(owner, image, tile, piece.grid) for tile in range(piece.tiles)]
        source, view = torch.cat(sources), torch.cat(views)  # (M,): number of the token among all cells of all crops
        breaks = source == BREAK
        line = (breaks.cumsum(0) - breaks.long()).masked_fill(view, -1)  # the next break ends a tile's line; views have none
        inner = (~breaks).nonzero().flatten()
        inner = inner[source[inner].argsort()]  # by crop, then in raster order
        area = packed[0].grid[0] * packed[0].grid[1]
        return VisualTokens(
            item[inner],
            column[inner],
            source[inner] // area,
            source[inner] % area,
            tuple(crops),
            line[inner],
            torch.stack([item[breaks], column[breaks]], 1),
        )

    def _tiles(self, image_sizes: Tensor) -> list[int]:
        """How many crops each picture becomes, the small view included."""
        side = self.config.vision_config.image_size
        return [image_size_to_num_patches(size, self.config.image_grid_pinpoints, side) for size in image_sizes]

    def packed(self, image_sizes: Tensor) -> list[Piece]:
        """One piece per picture, from the model's own packing of the numbers of their tokens."""
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        area, counts = side * side, self._tiles(image_sizes)
        numbers = [torch.arange(count * area, dtype=torch.float64).view(count, area, 1) for count in counts]
        strategy = self.config.vision_feature_select_strategy
        newline = torch.full((1,), BREAK, dtype=torch.float64)
        pack = type(self.root).pack_image_features  # not the instance's, on which somebody may listen
        places, _ = pack(self.root, numbers, image_sizes, vision_feature_select_strategy=strategy, image_newline=newline)
        return [
            Packed(picture, 0, (side, side), source=source[:, 0].long(), tiles=count)
            for picture, (source, count) in enumerate(zip(places, counts, strict=True))
        ]


class _Packing:
    """Stands in for the model's packing while somebody listens to it."""

    def __init__(self, parts: LlavaNext) -> None:
        self.parts = parts
        self.listeners: list[Callable[[Tensor, list[Piece] | None], None]] = []

    def __call__(self, image_features: Sequence[Tensor], image_sizes: Tensor, *args: Any, **kwargs: Any) -> Any:
        root = self.parts.root
        output = type(root).pack_image_features(root, image_features, image_sizes, *args, **kwargs)
        tokens, pieces = torch.cat(list(output[0])), self.parts.packed(image_sizes)
        for seen in self.listeners:
            seen(tokens, pieces)
        return output


class _PackingListener:
    """A listener's place at the packing, until `remove`; the last one takes the stand-in with it."""

    def __init__(self, parts: LlavaNext, seen: Callable[[Tensor, list[Piece] | None], None]) -> None:
        self.root, self.seen = parts.root, seen
        if "pack_image_features" not in vars(self.root):
            self.root.pack_image_features = _Packing(parts)
        self.root.pack_image_features.listeners.append(seen)

    def remove(self) -> None:
        """Stops listening."""
        listeners = self.root.pack_image_features.listeners
        listeners.remove(self.seen)
        if not listeners:
            del self.root.pack_image_features
