"""How many positions a picture becomes, and what is written for it in a prompt.

One function, `image_token_count`, says how many positions the model fills; the processor writes as many placeholders, with the
view's text between them, and the model refuses any other number. Nothing is ever cut inside a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from transformers import ProcessorMixin

from argus.core.errors import DataError
from argus.model.backbones.fusion import fused
from argus.model.connectors.base import budget_grid
from argus.model.views.base import Arrangement, Text, places


class Placeholders(ProcessorMixin):
    """The part of a processor that writes pictures into prompts."""

    def tile_grid(self, visual_tokens: int | None = None) -> tuple[int, int]:
        """Rows and columns of visual tokens of a tile; of so many where the connector can choose.

        Raises:
            UnsupportedError: it cannot, or not so many.
        """
        return (self.grid[0], self.grid[1]) if visual_tokens is None else budget_grid(visual_tokens, self.most_tokens)

    def arrange(
        self, width: int | None = None, height: int | None = None, visual_tokens: int | None = None, objects: int = 0
    ) -> Arrangement:
        """Tiles and layout of a picture of this size in pixels (of one tile's size when not given) with so many boxes."""
        size, grid = self.image_processor.size, self.tile_grid(visual_tokens)
        found = self.image_processor.view_component.arrange(width or size, height or size, size, grid)
        return fused(found.with_objects(objects), self.fusion)

    def image_token_count(self, width: int | None = None, height: int | None = None, visual_tokens: int | None = None) -> int:
        """Positions of a picture that the model fills: visual tokens and learned separators. The one place that knows."""
        return len(places(self.arrange(width, height, visual_tokens).layout))

    def picture_ids(
        self, width: int | None = None, height: int | None = None, visual_tokens: int | None = None, objects: int = 0
    ) -> list[int]:
        """Token ids of a picture: placeholders, and the text that its view writes between them."""
        ids: list[int] = []
        for span in self.arrange(width, height, visual_tokens, objects).layout:
            ids += self._text_ids(span.text) if isinstance(span, Text) else [self.image_token_id] * len(span.source)
        return ids

    def _text_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """What transformers' processor writes in place of one `<image>`."""
        sizes = image_inputs.get("image_sizes")
        height, width = (None, None) if sizes is None else (int(side) for side in sizes[image_idx])
        objects = 0 if "boxes" not in image_inputs else int((image_inputs["boxes"][image_idx][:, 0] >= 0).sum())
        layout = self.arrange(width, height, image_inputs.get("visual_tokens"), objects).layout
        return "".join(s.text if isinstance(s, Text) else self.image_token * len(s.source) for s in layout)

    def _expand(
        self, row: np.ndarray, shapes: Iterator[tuple[int, int, int | None, int]], longest: int | None, cut: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a prompt with its pictures' written out, and the place in `row` that each comes from."""
        marks = np.flatnonzero(row == self.image_token_id)
        written = [np.array(self.picture_ids(*next(shapes))) for _ in marks]
        times = np.ones(len(row), dtype=np.int64)
        times[marks] = [len(picture) for picture in written]
        where = np.repeat(np.arange(len(row)), times)
        ids = row[where]
        if written:
            ids[np.isin(where, marks)] = np.concatenate(written)
        end = int(times[: marks[-1] + 1].sum()) if len(marks) else 0  # behind the last picture
        if longest is not None and len(where) > longest:
            if not cut or end > longest:
                raise DataError(
                    f"a prompt has {len(where)} tokens, {end} of them up to its last picture, and max_length is {longest}",
                    hint="Raise max_length; pictures are never cut.",
                )
            ids, where = ids[:longest], where[:longest]
        return ids, where
