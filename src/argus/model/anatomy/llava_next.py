"""LLaVA-NeXT: a picture becomes a small view of itself and tiles of it at a higher resolution (AnyRes).

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
from functools import update_wrapper
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
    """All crops of a picture, packed; `grid` is that of the encoder's patches in each of them.

    Args:
        source: (size,) for each placeholder the number of its cell, counted through all crops, or BREAK.
        tiles: how many crops the encoder was given.
        crops: grids of the crops in the prompt.
        unbroken: how many of the first crops have no line breaks.
    """

    source: Tensor
    tiles: int
    crops: tuple[tuple[int, int], ...]
    unbroken: int = 1

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
        return self.packed(inputs["image_sizes"], self.tiles(inputs))

    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        pixels = inputs["pixel_values"]
        if pixels.ndim == 4:
            return list(pixels)
        return [tile for picture, count in zip(pixels, self.tiles(inputs), strict=True) for tile in picture[:count]]

    def on_features(self, seen: Callable[[Tensor, list[Piece] | None], None]) -> Listener:
        def packing(output: Any, image_features: Sequence[Tensor], image_sizes: Tensor, *args: Any, **kwargs: Any) -> None:
            seen(torch.cat(list(output[0])), self.packed(image_sizes, [len(tiles) for tiles in image_features]))

        return Overheard(self.root, "pack_image_features", packing)

    def locate(self, mask: Tensor, pieces: Sequence[Piece]) -> VisualTokens:
        item, column = mask.nonzero(as_tuple=True)
        total = sum(p.size for p in pieces)
        if total != len(item):
            raise UnsupportedError(f"the prompt has {len(item)} visual tokens, its pictures give {total}.")
        packed = [p for p in pieces if isinstance(p, Packed)]
        starts = torch.tensor([0, *(p.size for p in packed)], device=mask.device).cumsum(0)[:-1]
        owners = item[starts].tolist()
        crops: list[Crop] = []
        firsts = [0]  # number of each crop's first cell among all cells of all crops
        numbers: dict[int, dict[int, int]] = {}
        sources, unbroken = [], []
        for piece, owner in zip(packed, owners, strict=True):
            seen = numbers.setdefault(owner, {})
            image = seen.setdefault(piece.picture, len(seen))
            source = piece.source.to(mask.device)
            sources.append(torch.where(source == BREAK, BREAK, source + firsts[-1]))
            for tile, (rows, columns) in enumerate(piece.crops):
                crops.append(Crop(owner, image, tile, (rows, columns)))
                unbroken.append(tile < piece.unbroken)
                firsts.append(firsts[-1] + rows * columns)
        source, first = torch.cat(sources), torch.tensor(firsts, device=mask.device)  # (M,), (C + 1,)
        breaks = source == BREAK
        line = breaks.cumsum(0)  # the next break ends a token's line
        inner = (~breaks).nonzero().flatten()
        inner = inner[source[inner].argsort()]  # by crop, then in raster order
        crop = torch.bucketize(source[inner], first, right=True) - 1
        return VisualTokens(
            item[inner],
            column[inner],
            crop,
            source[inner] - first[crop],
            tuple(crops),
            line[inner].masked_fill(torch.tensor(unbroken, device=mask.device)[crop], -1),
            torch.stack([item[breaks], column[breaks]], 1),
        )

    def tiles(self, inputs: Mapping[str, Any]) -> list[int]:
        """How many crops each picture becomes, the small view included."""
        side = self.config.vision_config.image_size
        return [image_size_to_num_patches(size, self.config.image_grid_pinpoints, side) for size in inputs["image_sizes"]]

    def packed(self, image_sizes: Tensor, tiles: Sequence[int]) -> list[Piece]:
        """One piece per picture, from the model's own packing of the numbers of their tokens."""
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        return [
            Packed(picture, 0, (side, side), source=source[:, 0].long(), tiles=count, crops=count * ((side, side),))
            for picture, (source, count) in enumerate(zip(self.packing(numbers(tiles, side), image_sizes), tiles, strict=True))
        ]

    def packing(self, values: Sequence[Tensor], image_sizes: Tensor) -> Sequence[Tensor]:
        """The model's packing of numbers (tiles, patches, 1) instead of features: (size, 1), with BREAK for a line break."""
        newline = torch.full((1,), BREAK, dtype=values[0].dtype, device=values[0].device)
        strategy = self.config.vision_feature_select_strategy
        pack = type(self.root).pack_image_features  # not the instance's, which somebody may overhear
        return pack(self.root, values, image_sizes, vision_feature_select_strategy=strategy, image_newline=newline)[0]


def numbers(tiles: Sequence[int], side: int) -> list[Tensor]:
    """(tiles, side * side, 1) for each picture: its cells, counted through all of its tiles."""
    return [torch.arange(count * side * side, dtype=torch.float64).view(count, side * side, 1) for count in tiles]


class Overheard:
    """Calls `heard(output, *args, **kwargs)` whenever a module's method was called, until `remove`."""

    def __init__(self, root: Any, name: str, heard: Callable[..., None]) -> None:
        self.root, self.name, self.heard = root, name, heard
        if name not in vars(root):
            setattr(root, name, _Method(root, name))
        getattr(root, name).listeners.append(heard)

    def remove(self) -> None:
        """Stops listening; the last one gives the module its own method back."""
        listeners = getattr(self.root, self.name).listeners
        listeners.remove(self.heard)
        if not listeners:
            delattr(self.root, self.name)


class _Method:
    """Stands in for a module's method while somebody listens to it; with its signature, which `generate` reads."""

    def __init__(self, root: Any, name: str) -> None:
        self.method = getattr(root, name)
        self.listeners: list[Callable[..., None]] = []
        update_wrapper(self, self.method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.method(*args, **kwargs)
        for heard in self.listeners:
            heard(output, *args, **kwargs)
        return output
