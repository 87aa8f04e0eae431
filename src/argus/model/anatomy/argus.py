"""Models composed by Argus: any encoder that gives `VisualFeatures`, any connector, any causal language model, any view.

Views of several tiles put the tiles' tokens together in orders of their own, with learned separators between them. Every tile is
a crop; a separator that ends a row leaves with the last token of the row, other separators stay. Tiles that are read by
cross-attention have no place in a prompt and are no crops of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.model.anatomy.base import Anatomy, Crop, Listener, Piece, VisualTokens, attention_of
from argus.model.connectors.base import ConnectorContext
from argus.model.encoders.transformers_tower import TransformersTower
from argus.model.encoders.vit import ViT
from argus.model.features import VisualFeatures
from argus.model.prefix_lm import PrefixLM
from argus.model.views.base import NEWLINE, Arrangement, Places, places


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arranged(Piece):
    """All tiles of a picture, as its view puts them together."""

    arrangement: Arrangement

    @property
    def size(self) -> int:
        return len(places(self.arrangement.layout))

    @property
    def patches(self) -> int:
        return self.tiles * self.grid[0] * self.grid[1]

    @property
    def tiles(self) -> int:
        return self.arrangement.tiles

    @property
    def shown(self) -> list[int]:
        source = places(self.arrangement.layout)
        return np.unique(source[source >= 0] // (self.grid[0] * self.grid[1])).tolist()

    def chosen(self, scores: Tensor) -> Tensor:
        source = torch.from_numpy(places(self.arrangement.layout))
        return scores[source[source >= 0].sort().values.to(scores.device)]

    def lines(self) -> Tensor:
        """(size,) for each position that of the separator that ends its row, -1 for none."""
        lines, start = [], 0
        for span in self.arrangement.layout:
            if not isinstance(span, Places):
                continue
            source = torch.from_numpy(span.source)
            ends = (source == NEWLINE).nonzero().flatten()
            line = torch.full_like(source, -1)
            if len(ends):
                line = start + ends[torch.searchsorted(ends, torch.arange(len(source)))]
            lines.append(line)
            start += len(source)
        return torch.cat(lines)


class Argus(Anatomy):
    """Models composed by Argus (`ArgusForConditionalGeneration`); every tile is a crop."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if isinstance(self.language_model, PrefixLM):
            raise UnsupportedError(
                "visual tokens run through the encoder of an encoder-decoder, and techniques act in the layers of a decoder.",
                hint="Compose the model with a causal language model.",
            )

    @property
    def vision_tower(self) -> nn.Module:
        return self.root.vision_tower

    @property
    def projector(self) -> nn.Module:
        return self.root.multi_modal_projector

    @property
    def connector_mixes(self) -> bool:  # type: ignore[override]
        return bool(self.projector.mixes_tokens)

    @property
    def resamples(self) -> bool:  # type: ignore[override]
        return bool(self.projector.resamples)

    @property
    def in_sequence(self) -> bool:  # type: ignore[override]
        return self.root.fusion != "cross"

    @property
    def has_cls(self) -> bool:
        return bool(self.vision_tower.has_cls)

    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        """One per picture; one per tile for the vision tower's own inputs, which do not say how tiles belong together."""
        pixels = inputs["pixel_values"]
        grid = self.root.visual_grid(*pixels.shape[-2:], inputs.get("visual_tokens"))
        sizes, boxes = inputs.get("image_sizes"), inputs.get("boxes")
        if sizes is not None or (boxes is not None and self.projector.reads_boxes):
            objects = [] if boxes is None else (boxes[..., 0] >= 0).sum(1).tolist()
            return arranged(self.root.arrangements(sizes, grid, objects))
        return [Piece(picture, 0, grid) for picture in range(len(pixels))]

    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        return list(inputs["pixel_values"])

    def tower_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {"pixel_values": args[0] if args else kwargs["pixel_values"], "visual_tokens": self.root.asked_tokens}

    def tower_options(self, kinds: Collection[str]) -> dict[str, Any]:
        return {"cls_attention": True} if "cls" in kinds else {}

    def output_scores(self, output: Any) -> dict[Literal["cls", "received"], Tensor]:
        assert isinstance(output, VisualFeatures)
        return {} if output.cls_attention is None else {"cls": output.cls_attention.detach().mean(1)}

    @property
    def features_module(self) -> nn.Module:
        return self.root.image_assembly if self.root.arranges else self.projector

    def features(self, output: Any) -> Tensor:
        return torch.cat(output) if isinstance(output, list) else super().features(output)

    def on_features(self, seen: Callable[[Tensor, list[Piece] | None], None]) -> Listener:
        if not self.root.arranges:
            return super().on_features(seen)
        return self.features_module.register_forward_hook(
            lambda module, args, output: seen(self.features(output), arranged(args[1]))
        )

    def locate(self, mask: Tensor, pieces: Sequence[Piece]) -> VisualTokens:
        pieces = [p for p in pieces if p.size]
        pictures = [p for p in pieces if isinstance(p, Arranged)]
        if not pictures:
            return super().locate(mask, pieces)
        item, column = mask.nonzero(as_tuple=True)
        total = sum(p.size for p in pictures)
        if total != len(item):
            raise UnsupportedError(f"the prompt has {len(item)} visual tokens, its pictures give {total}.")
        crops: list[Crop] = []
        numbers: dict[int, dict[int, int]] = {}  # item -> picture -> its number in that item
        sources, lines, start = [], [], 0
        area = pictures[0].grid[0] * pictures[0].grid[1]
        for picture in pictures:
            owner = int(item[start])
            seen = numbers.setdefault(owner, {})
            image = seen.setdefault(picture.picture, len(seen))
            source, line = torch.from_numpy(places(picture.arrangement.layout)), picture.lines()
            shown = torch.tensor(picture.shown)
            crop = len(crops) + torch.searchsorted(shown, source // area)
            sources.append(torch.where(source < 0, -1, crop * area + source % area))
            lines.append(torch.where(line < 0, -1, line + start))
            crops += [Crop(owner, image, tile, picture.grid) for tile in picture.shown]
            start += picture.size
        source, line = torch.cat(sources).to(mask.device), torch.cat(lines).to(mask.device)  # (M,) over all positions
        breaks = source < 0
        number = torch.where(breaks, breaks.cumsum(0) - 1, -1)  # of a separator among separators
        inner = (~breaks).nonzero().flatten()
        inner = inner[source[inner].argsort()]  # by crop, then in raster order
        ends = torch.where(line[inner] < 0, -1, number[line[inner].clamp(min=0)])
        separators = torch.stack([item[breaks], column[breaks]], 1)
        cell = source[inner]
        return VisualTokens(item[inner], column[inner], cell // area, cell % area, tuple(crops), ends, separators)

    @property
    def encoder_attention(self) -> nn.Module:
        tower = self.vision_tower
        if isinstance(tower, ViT) and (index := tower.config.feature_layer % (len(tower.blocks) + 1)):
            return tower.blocks[index - 1]
        if not isinstance(tower, TransformersTower):
            none = "no attention but that of its CLS token" if self.has_cls else "neither a CLS token nor any other attention"
            raise UnsupportedError(f"the encoder {type(tower).__name__} gives {none}.")
        blocks = tower.blocks()
        return attention_of(blocks[tower.feature_layer % (len(blocks) + 1) - 1])

    def patches_per_call(self, inputs: Mapping[str, Any], keys: int) -> int:
        rows, columns = self._patches(inputs)
        return rows * columns

    def of_patches(self, features: Any, patches: Tensor, count: int) -> Tensor:
        projector: Any = self.projector
        return projector.of_patches(features, patches, ConnectorContext(budget=count))

    def _patches(self, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of patches per tile."""
        high, wide = inputs["pixel_values"].shape[-2:]
        return high // self.vision_tower.patch_size, wide // self.vision_tower.patch_size

    def token_scores(self, patch_scores: list[Tensor], inputs: Mapping[str, Any]) -> Tensor:
        """Mean over the patches that a visual token is made of, where the connector shrinks the grid evenly."""
        rows, columns = self._patches(inputs)
        high, wide = self.pieces(inputs)[0].grid
        scores = super().token_scores(patch_scores, inputs)
        if (high, wide) == (rows, columns):
            return scores
        if rows % high or columns % wide or rows // high != columns // wide:
            raise UnsupportedError(
                f"the connector makes {high} x {wide} visual tokens of {rows} x {columns} patches, so the encoder's "
                "attention on patches says nothing about single tokens."
            )
        return scores.view(-1, high, rows // high, wide, columns // wide).mean((2, 4)).flatten()


def arranged(pictures: Sequence[Arrangement]) -> list[Piece]:
    """Pictures in tiles as pieces."""
    return [Arranged(number, 0, picture.grid, arrangement=picture) for number, picture in enumerate(pictures)]
