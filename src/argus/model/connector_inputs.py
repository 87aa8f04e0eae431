"""What connectors want to know beside the picture, as tensors: the instruction's ids, and boxes of interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from argus.core.errors import DataError
from argus.core.registry import check_options
from argus.core.sample import Sample
from argus.model.boxes import Box, BoxOptions, BoxSource, filled, in_frame
from argus.model.image_processor import as_picture


class ConnectorInputs(ProcessorMixin):
    """The part of a processor that prepares instructions and boxes."""

    @property
    def depends_on_question(self) -> bool:
        """Whether a picture's visual tokens depend on what is asked, so that they cannot serve several questions."""
        source = self.box_source
        return self.instruction_length > 0 or (source is not None and source.depends_on_question)

    @property
    def box_source(self) -> BoxSource | None:
        """Where the boxes of samples come from, for a connector that reads them."""
        if not self.reads_boxes or self.boxes is None:
            return None
        return BoxSource(check_options("connector", "boxes", BoxOptions, self.boxes))  # type: ignore[arg-type]

    def instruction_ids(self, instructions: Sequence[str]) -> Tensor:
        """(n, L) ids of instructions: start, text, end, zeros. A longer text is cut in front of its end."""
        words = self.instruction_tokenizer
        table = torch.zeros(len(instructions), self.instruction_length, dtype=torch.long)
        for row, text in zip(table, words(list(instructions), add_special_tokens=False)["input_ids"], strict=True):
            ids = [words.bos_token_id, *text[: self.instruction_length - 2], words.eos_token_id]
            row[: len(ids)] = torch.tensor(ids)
        return table

    def _asked(self, prompt: str) -> str:
        """The first line behind a prompt's last picture."""
        lines = [line.strip() for line in prompt.rpartition(self.image_token)[2].splitlines()]
        return next((line for line in lines if line), "")

    def tile_boxes(self, boxes: Sequence[Sequence[Box]], pictures: Sequence[Any]) -> Tensor:
        """(P, K, 4) boxes of pictures, relative to what their tiles show; shorter lists are filled up with rows of -1.

        Raises:
            DataError: other lists than pictures.
        """
        if len(boxes) != len(pictures):
            raise DataError(f"{len(boxes)} lists of boxes were given for {len(pictures)} pictures")
        view = self.image_processor.view_component
        return filled([in_frame(some, view.frame(*as_picture(p).size)) for some, p in zip(boxes, pictures, strict=True)])

    def _detected(self, picture: Any) -> Sequence[Box]:
        return self.detector(as_picture(picture)) if self.detector is not None else []

    def reading(self, samples: Sequence[Sample], pictures: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
        """What `__call__` takes beside text and pictures, for samples: their instructions and boxes, where those are read."""
        found: dict[str, Any] = {}
        if self.instruction_length:
            found["instructions"] = [sample.instruction() for sample in samples]
        if (source := self.box_source) is not None:
            each = [source(s, [p.size for p in shown]) for s, shown in zip(samples, pictures, strict=True)]
            found["boxes"] = [some for group in each for some in group]
        return found
