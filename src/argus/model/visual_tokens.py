"""Pictures become visual tokens: encoded, connected, and put in the order in which they are read.

    pixels (T, 3, H, W) -> encoder -> (T, N, C) -> connector -> (T, M, D)

With a view of several tiles the sizes of the pictures say how their tiles are put together (`Assembly`), learned separators
between them, and how many positions each has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from argus.core.errors import ModelError, UnsupportedError
from argus.model.backbones.fusion import Crossed, crossed_tiles, fused
from argus.model.config import ArgusConfig
from argus.model.connectors.base import ConnectorContext, budget_grid
from argus.model.features import VisualFeatures
from argus.model.parts import ArgusParts
from argus.model.token_map import Filling
from argus.model.views.base import Arrangement, places


class VisualTokens(ArgusParts):
    """The parts that read pictures, and how those lie that they read last."""

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        self._grid = self.visual_grid()  # of the pictures that were encoded last
        self.asked_tokens: int | None = None  # visual tokens that were asked of each of their tiles
        self._pictures: list[Arrangement] | None = None  # those that were encoded last, where they have several tiles
        self._filling: Filling | None = None  # which prompts show them
        self._crossed: Crossed | None = None  # their tiles that stay out of the sequence, until a pass reads them

    def encode_images(self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False) -> VisualFeatures:
        """Features of tiles (T, 3, H, W), before the connector; `config.tiles_per_pass` of them at a time."""
        return self.vision_tower(
            pixel_values,
            cls_attention=cls_attention,
            hidden_states=hidden_states,
            tiles_per_pass=self.config.tiles_per_pass,
        )

    def get_image_features(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor | None = None,
        visual_tokens: int | None = None,
        return_dict: bool = False,
        instruction_ids: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> Tensor | list[Tensor] | BaseModelOutputWithPooling:
        """Visual tokens (T, M, D) of tiles (T, 3, H, W); with a view of several tiles, what each picture (n, D) becomes.

        Where tiles stay out of the sequence, theirs stand behind those that are in it.

        Args:
            image_sizes: (P, 2) height and width of each picture in pixels, which such views need.
            visual_tokens: how many visual tokens a tile becomes, where the connector can choose; its most when not given.
            return_dict: as `pooler_output` of an output object, which is how `generate` wants them.
            instruction_ids: (T, L) the question that is asked of each tile, for connectors that read it.
            boxes: (T, K, 4) boxes of interest, see `ConnectorContext`, for connectors that read them.
        """
        connector = self.multi_modal_projector
        height, width = pixel_values.shape[-2:]
        self._grid = self.visual_grid(height, width, visual_tokens)
        self.asked_tokens = visual_tokens
        seen = self.encode_images(pixel_values, hidden_states=bool(connector.levels))
        asked = None if instruction_ids is None else self.encode_instruction(instruction_ids)
        features: Any = connector(seen, ConnectorContext(asked, boxes, visual_tokens))
        counts = [0] * len(pixel_values) if boxes is None else (boxes[..., 0] >= 0).sum(1).tolist()
        objects = None if boxes is None else connector.objects(seen, boxes)
        self._arrange(image_sizes, counts)
        if self._pictures is not None:
            stack = features
            features = self.image_assembly(stack, self._pictures, objects)
            if self.fusion != "decoder":
                features = self._behind(features, stack)
                features = self._apart(features) if return_dict else features
        return BaseModelOutputWithPooling(pooler_output=features) if return_dict else features

    def encode_instruction(self, ids: Tensor) -> Tensor:
        """The states (T, L, W) of an instruction (T, L) that the connector reads, padding included.

        Raises:
            UnsupportedError: a connector that reads none.
        """
        if not self.multi_modal_projector.reads_instruction:
            raise UnsupportedError(f"connector '{next(iter(self.config.connector))}' reads no instruction")
        states = self.instruction_tower(input_ids=ids, output_hidden_states=True).hidden_states
        return states[self.multi_modal_projector.options.text_layer]

    @property
    def arranges(self) -> bool:
        """Whether pictures differ in how many positions they have."""
        return self.view.tiled or self.multi_modal_projector.reads_boxes

    def arrangements(self, image_sizes: Tensor | None, grid: tuple[int, int], objects: Sequence[int]) -> list[Arrangement]:
        """How pictures are read: of these sizes (P, 2), or, where all have one tile, with so many boxes each.

        Raises:
            ModelError: a view of several tiles, and no sizes.
        """
        view, size = self.view, self.vision_tower.image_size
        if not view.tiled:
            one = view.arrange(size, size, size, grid)
            return [one.with_objects(count) for count in objects]
        if image_sizes is None:
            raise ModelError(
                f"pictures in tiles need their sizes (view '{next(iter(self.config.view))}')",
                hint="Pass image_sizes, which the processor gives.",
            )
        return [fused(view.arrange(int(w), int(h), size, grid), self.fusion) for h, w in image_sizes.tolist()]

    def _behind(self, sequence: Sequence[Tensor], stack: Tensor) -> list[Tensor]:
        """Visual positions (n, D) of each picture, and behind them its tiles in (T, M, D) that stay out of the sequence."""
        pictures = self._pictures or []
        tiles = stack.split([p.tiles for p in pictures])
        out = [t[crossed_tiles(p, self.fusion)].flatten(0, 1) for p, t in zip(pictures, tiles, strict=True)]
        return [torch.cat(pair) for pair in zip(sequence, out, strict=True)]

    def _apart(self, features: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """What `_behind` put together: visual positions of each picture; the rest is kept for the next pass."""
        pictures = self._pictures or []
        counts = [len(places(p.layout)) for p in pictures]
        rest = [one[n:] for one, n in zip(features, counts, strict=True)]
        tile = torch.tensor([t for p in pictures for t in crossed_tiles(p, self.fusion)], dtype=torch.long)
        tile = tile.repeat_interleave(math.prod(self._grid)).to(rest[0].device)
        self._crossed = Crossed(torch.cat(rest), tile, [len(one) for one in rest])
        return [one[:n] for one, n in zip(features, counts, strict=True)]

    def _arrange(self, image_sizes: Tensor | None, objects: Sequence[int]) -> None:
        """Remember how pictures are read, see `arrangements`."""
        self._filling = None
        self._pictures = self.arrangements(image_sizes, self._grid, objects) if self.arranges else None

    def note_features(
        self, features: Tensor | list[Tensor], image_sizes: Tensor | None = None, visual_tokens: int | None = None
    ) -> None:
        """Remember how visual tokens that were computed before lie."""
        grid = self.visual_grid(visual_tokens=visual_tokens)
        count = features.shape[1] if isinstance(features, Tensor) else math.prod(grid)
        self._grid = grid if math.prod(grid) == count else (1, count)
        self._arrange(image_sizes, [len(one) - math.prod(grid) for one in features])

    def visual_grid(
        self, height: int | None = None, width: int | None = None, visual_tokens: int | None = None
    ) -> tuple[int, int]:
        """Rows and columns of visual tokens per tile of this size in pixels (the trained size by default), or of so many."""
        tower = self.vision_tower
        if visual_tokens is not None:
            return budget_grid(visual_tokens, self.multi_modal_projector.most_tokens)
        rows = (height or tower.image_size) // tower.patch_size
        columns = (width or tower.image_size) // tower.patch_size
        return self.multi_modal_projector.tokens((rows, columns))
