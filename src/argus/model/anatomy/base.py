"""What a technique may know about a model, whatever its family.

Visual tokens come in *crops*: one grid of tokens that the encoder made from one rectangle of pixels - a picture, a
tile of a picture, or a frame of a video. A crop's tokens are numbered in raster order by their *cell*: row * columns
+ column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from argus.core.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Piece:
    """A crop as the encoder makes it, before it has a place in a prompt.

    Args:
        picture: number of the picture or video among all that were encoded together.
        tile: number of the crop in its picture.
        grid: (rows, columns) of its visual tokens, after any merging.
        lead: tokens in front of the grid that belong to the crop but have no place in the picture (a CLS token).
    """

    picture: int
    tile: int
    grid: tuple[int, int]
    lead: int = 0

    @property
    def size(self) -> int:
        """Visual tokens, leading ones included."""
        return self.lead + self.grid[0] * self.grid[1]

    @property
    def patches(self) -> int:
        """Cells that the encoder gives scores for."""
        return self.grid[0] * self.grid[1]

    @property
    def tiles(self) -> int:
        """Crops in it."""
        return 1

    @property
    def shown(self) -> list[int]:
        """Those of its crops that have tokens in the prompt."""
        return [*range(self.tiles)]

    def chosen(self, scores: Tensor) -> Tensor:
        """(patches,) -> scores of the tokens that have a place in the prompt, by crop, then in raster order."""
        return scores


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop in a prompt: `item` of the batch, `image` of that item, `tile` of that image, and its grid."""

    item: int
    image: int
    tile: int
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """Where the T visual tokens of a batch are, ordered by item, then by crop, then in raster order.

    Args:
        item: (T,) row of the batch.
        column: (T,) position in the sequence.
        crop: (T,) index into `crops`.
        cell: (T,) raster index in the crop's grid.
        crops: one entry per crop.
        line: (T,) index into `breaks` of the one that ends the token's line, -1 for none; None without breaks.
        breaks: (L, 2) item and column of line breaks, positions of a picture that show no part of it.
    """

    item: Tensor
    column: Tensor
    crop: Tensor
    cell: Tensor
    crops: tuple[Crop, ...]
    line: Tensor | None = None
    breaks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.item)

    def mask(self, batch: int, length: int) -> Tensor:
        """(batch, length) bool: whether a position holds a visual token."""
        mask = torch.zeros(batch, length, dtype=torch.bool, device=self.item.device)
        mask[self.item, self.column] = True
        return mask

    def pictures(self, batch: int, length: int) -> Tensor:
        """(batch, length) bool: whether a position belongs to a picture, as a visual token or as a line break."""
        mask = self.mask(batch, length)
        if self.breaks is not None:
            mask[self.breaks[:, 0], self.breaks[:, 1]] = True
        return mask

    def by_line(self, values: Tensor) -> Tensor:
        """(T,) -> (L,): for each line break the greatest value of its line's tokens."""
        assert self.line is not None
        assert self.breaks is not None
        inner = self.line >= 0
        lowest = values.new_full((len(self.breaks),), -torch.inf)
        return lowest.scatter_reduce(0, self.line[inner], values[inner], "amax")

    def leaving(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Items and columns that leave when of the tokens `before` (T,) only those `after` (T,) stay.

        A line break leaves with the last token of its line.
        """
        gone = before & ~after
        item, column = self.item[gone], self.column[gone]
        if self.line is None or self.breaks is None:
            return item, column
        held = [torch.isin(torch.arange(len(self.breaks), device=item.device), self.line[some]) for some in (before, after)]
        ended = self.breaks[held[0] & ~held[1]]
        return torch.cat([item, ended[:, 0]]), torch.cat([column, ended[:, 1]])

    def spans(self) -> list[tuple[Crop, int, int]]:
        """Each crop with its first position and the one behind its last."""
        spans = []
        for number, crop in enumerate(self.crops):
            columns = self.column[self.crop == number]
            spans.append((crop, int(columns.min()), int(columns.max()) + 1))
        return spans


class Listener(Protocol):
    """Something that listens until it is removed."""

    def remove(self) -> None: ...


class Anatomy(ABC):
    """The parts of one model.

    Attributes:
        model: the model itself, without adapters around it.
        root: the module that takes `input_ids` and pixels and calls vision tower and language model.
        language_model: the decoder without its head.
        vision_tower: pixels -> features.
        projector: the connector; the vision tower itself where it is part of it.
        layers: the decoder layers.
        rotary: makes (cos, sin) from position ids.
        picture_inputs: arguments of `root` that say a forward pass has pictures.
        mrope: position ids are (3, B, S) of time, row and column instead of (B, S).
        connector_mixes: one visual token sees several patches, so that patches cannot be dropped before the connector.
        in_sequence: visual tokens are positions of the sequence, and not only keys of cross-attention.
        resamples: visual tokens are queries that read the patches, which can read some of them alone, see `of_patches`.
    """

    picture_inputs: tuple[str, ...] = ("pixel_values", "pixel_values_videos", "mm_encoder_outputs", "image_features")
    mrope: bool = False
    connector_mixes: bool = False
    in_sequence: bool = True
    resamples: bool = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self.root: Any = getattr(model, "model", model)
        self.config: Any = model.config
        self.family: str = self.config.model_type
        self.language_model: Any = self.root.language_model

    @property
    def layers(self) -> nn.ModuleList:
        return self.language_model.layers

    def decoder_attention(self, index: int) -> nn.Module:
        """The attention module of a decoder layer."""
        return self.language_model.layers[index].self_attn

    @property
    def rotary(self) -> nn.Module:
        return self.language_model.rotary_emb

    @property
    @abstractmethod
    def vision_tower(self) -> nn.Module: ...

    @property
    @abstractmethod
    def projector(self) -> nn.Module: ...

    @property
    def has_cls(self) -> bool:
        """Whether the encoder has a CLS token."""
        return any(name.endswith(("class_embedding", "cls_token")) for name, _ in self.vision_tower.named_parameters())

    # -- visual tokens of an input

    def visual_token_ids(self) -> tuple[int, ...]:
        """Token ids of the placeholders that visual tokens replace."""
        return (int(self.config.image_token_id),)

    def visual_mask(self, input_ids: Tensor) -> Tensor:
        """(B, S) bool: which tokens are placeholders of visual tokens."""
        return torch.isin(input_ids, torch.tensor(self.visual_token_ids(), device=input_ids.device))

    @abstractmethod
    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        """The crops that the pixels of an input become, in the order in which they are encoded."""

    def visual_tokens(self, inputs: Mapping[str, Any]) -> VisualTokens:
        """Where the visual tokens of a processor's output are."""
        return self.locate(self.visual_mask(inputs["input_ids"]), self.pieces(inputs))

    def alternating(self, input_ids: Tensor, images: Sequence[Piece], videos: Sequence[Piece]) -> VisualTokens:
        """Where visual tokens are when images and videos, encoded by kind, have placeholders of their own and may alternate."""
        mask = self.visual_mask(input_ids)
        sources = dict(zip(self.visual_token_ids(), (iter(images), iter(videos)), strict=True))
        kinds, order, place = input_ids[mask].tolist(), list[Piece](), 0
        while place < len(kinds):
            piece = next(sources[kinds[place]], None)
            if piece is None:  # `locate` says how many are missing
                break
            order.append(piece)
            place += piece.size
        return self.locate(mask, order)

    def locate(self, mask: Tensor, pieces: Sequence[Piece]) -> VisualTokens:
        """Gives the placeholders of a batch, (B, S) bool, to the crops that fill them, in order."""
        item, column = mask.nonzero(as_tuple=True)
        sizes = torch.tensor([p.size for p in pieces], device=mask.device, dtype=torch.long)
        total = sum(p.size for p in pieces)
        if total != len(item):
            raise UnsupportedError(f"the prompt has {len(item)} visual tokens, its pictures give {total}.")
        crop = torch.repeat_interleave(torch.arange(len(pieces), device=mask.device), sizes, output_size=total)
        start = sizes.cumsum(0) - sizes
        lead = torch.tensor([p.lead for p in pieces], device=mask.device, dtype=torch.long)
        cell = torch.arange(total, device=mask.device) - (start + lead)[crop]
        owners = item[start].tolist()
        crops: list[Crop] = []
        numbers: dict[int, dict[int, int]] = {}  # item -> picture -> its number in that item
        for piece, owner in zip(pieces, owners, strict=True):
            seen = numbers.setdefault(owner, {})
            crops.append(Crop(owner, seen.setdefault(piece.picture, len(seen)), piece.tile, piece.grid))
        inner = cell >= 0
        return VisualTokens(item[inner], column[inner], crop[inner], cell[inner], tuple(crops))

    @abstractmethod
    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        """The pixels of each crop of an input, in encoding order."""

    # -- what passes through the vision tower

    @abstractmethod
    def tower_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call of the vision tower, named as the processor names them."""

    @property
    @abstractmethod
    def features_module(self) -> nn.Module:
        """The module whose output replaces the placeholders."""

    def features(self, output: Any) -> Tensor:
        """(M, D) visual tokens in placeholder order, from the output of `features_module`."""
        return output.flatten(0, -2)

    def on_features(self, seen: Callable[[Tensor, list[Piece] | None], None]) -> Listener:
        """Calls `seen` with the visual tokens (M, D) that replace placeholders, whenever pictures were encoded.

        The pieces are given where the vision tower's inputs do not say all about them.
        """
        return self.features_module.register_forward_hook(lambda module, args, output: seen(self.features(output), None))

    def tower_options(self, kinds: Collection[str]) -> dict[str, Any]:
        """Arguments that make the vision tower itself give attention of some kinds (`cls`, `received`)."""
        return {}

    def output_scores(self, output: Any) -> dict[Literal["cls", "received"], Tensor]:
        """What the tower's output holds because of `tower_options`: kind -> (G, N) attention, mean over heads."""
        return {}

    @property
    @abstractmethod
    def encoder_attention(self) -> nn.Module:
        """The attention module of the last encoder block whose output is used and whose queries see the whole crop."""

    def patches_per_call(self, inputs: Mapping[str, Any], keys: int) -> int:
        """How many of the `keys` of a call of `encoder_attention` are patches; before them are CLS and registers."""
        rows, columns = self.pieces(inputs)[0].grid
        return rows * columns

    def of_patches(self, features: Any, patches: Tensor, count: int) -> Tensor:
        """Visual tokens (G, count, D) made of some patches (G, k) of each crop alone.

        Args:
            features: what the vision tower gave.

        Raises:
            UnsupportedError: a connector that cannot.
        """
        raise UnsupportedError(f"the connector of {self.family} makes no visual tokens of some patches alone")

    def token_scores(self, patch_scores: list[Tensor], inputs: Mapping[str, Any]) -> Tensor:
        """Scores of patches, a tensor per call of `encoder_attention`, to scores (T,) of tokens in crop order."""
        return torch.cat([s.flatten() for s in patch_scores])


def encoder_blocks(tower: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a vision tower of transformers: its longest list of modules."""
    lists = [m for m in tower.modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise UnsupportedError(f"the vision tower {type(tower).__name__} has no transformer blocks.")
    return max(lists, key=len)


def attention_of(block: nn.Module) -> nn.Module:
    """The attention module of a transformer block: the one that dispatches through the attention interface."""
    for module in block.modules():
        if hasattr(module, "is_causal") and hasattr(module, "config"):
            return module
    raise UnsupportedError(f"{type(block).__name__} does not use the attention interface of transformers.")
