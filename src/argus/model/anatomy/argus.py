"""Models composed by Argus: any encoder that gives `VisualFeatures`, any connector, any causal language model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.model.anatomy.base import Anatomy, Piece, attention_of
from argus.model.encoders.transformers_tower import TransformersTower
from argus.model.features import VisualFeatures


class Argus(Anatomy):
    """Models composed by Argus (`ArgusForConditionalGeneration`); every tile is a crop."""

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
    def has_cls(self) -> bool:
        return bool(self.vision_tower.has_cls)

    def pieces(self, inputs: Mapping[str, Any]) -> list[Piece]:
        pixels = inputs["pixel_values"]
        grid = self.root.visual_grid(*pixels.shape[-2:])
        return [Piece(picture, 0, grid) for picture in range(len(pixels))]

    def vision_pixels(self, inputs: Mapping[str, Any]) -> list[Tensor]:
        return list(inputs["pixel_values"])

    def tower_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {"pixel_values": args[0] if args else kwargs["pixel_values"]}

    def tower_options(self, kinds: Collection[str]) -> dict[str, Any]:
        return {"cls_attention": True} if "cls" in kinds else {}

    def output_scores(self, output: Any) -> dict[Literal["cls", "received"], Tensor]:
        assert isinstance(output, VisualFeatures)
        return {} if output.cls_attention is None else {"cls": output.cls_attention.detach().mean(1)}

    @property
    def features_module(self) -> nn.Module:
        return self.projector

    @property
    def encoder_attention(self) -> nn.Module:
        tower = self.vision_tower
        if not isinstance(tower, TransformersTower):
            none = "no attention but that of its CLS token" if self.has_cls else "neither a CLS token nor any other attention"
            raise UnsupportedError(f"the encoder {type(tower).__name__} gives {none}.")
        blocks = tower.blocks()
        return attention_of(blocks[tower.feature_layer % (len(blocks) + 1) - 1])

    def token_scores(self, patch_scores: list[Tensor], inputs: Mapping[str, Any]) -> Tensor:
        """Mean over the patches that a visual token is made of, where the connector shrinks the grid evenly."""
        rows, columns = (side // self.vision_tower.patch_size for side in inputs["pixel_values"].shape[-2:])
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
