"""Prompts and their pictures -> the tensors a composed model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature

from argus.core.errors import DataError, UnsupportedError
from argus.model.boxes import Box
from argus.model.connector_inputs import ConnectorInputs
from argus.model.image_processor import as_picture, flat
from argus.model.placeholders import Placeholders


class PromptEncoding(Placeholders, ConnectorInputs):
    """The part of a processor that encodes text with pictures."""

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        padding: bool | str = False,
        padding_side: str = "left",
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = False,
        return_mm_token_type_ids: bool = True,
        visual_tokens: int | None = None,
        instructions: Sequence[str] | None = None,
        boxes: Sequence[Sequence[Box]] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Encode prompts with their pictures.

        Args:
            images: pictures of all prompts, in reading order (a list of lists per prompt is read in order too).
            text: one prompt or several, `<image>` where a picture is shown.
            padding, padding_side: as in transformers; prompts are padded on the left, as generation needs.
            max_length: refuse longer prompts (with `truncation`, cut text behind the last picture).
            visual_tokens: how many visual tokens a tile becomes, where the connector can choose; its most when not given.
            instructions: what each prompt asks, for connectors that read it; its first line behind the picture when not given.
            boxes: relative boxes (x1, y1, x2, y2) of interest of each picture, for connectors that read them; what the
                `detector` finds when not given.

        Returns:
            input_ids, attention_mask, mm_token_type_ids (B, S), pixel_values (T, 3, H, W), image_sizes (P, 2) where the view
            cuts several tiles, and `visual_tokens` as it was given, so that the model makes as many as the prompt holds.
            Where the connector reads them also instruction_ids (T, L) and boxes (T, K, 4).

        Raises:
            DataError: markers and pictures do not match, or a picture would be cut.
        """
        for kind in ("videos", "audio"):
            if kwargs.get(kind) is not None:
                raise UnsupportedError(f"this processor reads pictures and text, not {kind}")
        pictures = list(flat(images)) if images is not None else []
        data: dict[str, Any] = {}
        if pictures:
            data.update(self.image_processor(pictures))
        for given, read, what in ((boxes, self.reads_boxes, "boxes"), (instructions, self.instruction_length, "instructions")):
            if given is not None and not read:
                raise UnsupportedError(f"this model's connector reads no {what}")
        if pictures and self.reads_boxes:
            data["boxes"] = self.tile_boxes(boxes if boxes is not None else [self._detected(p) for p in pictures], pictures)
        if text is None:
            return BatchFeature(data, tensor_type=return_tensors)
        wanted = {k: kwargs[k] for k in ("return_offsets_mapping", "sanitize_control_tokens") if kwargs.get(k)}
        tokens = self.tokenizer([text] if isinstance(text, str) else list(text), add_special_tokens=add_special_tokens, **wanted)
        rows = [np.array(row, dtype=np.int64) for row in tokens["input_ids"]]
        shown = sum(int((row == self.image_token_id).sum()) for row in rows)
        if shown != len(pictures):
            raise DataError(f"the prompts show {shown} pictures ('{self.image_token}'), but {len(pictures)} were given")
        objects = (data["boxes"][..., 0] >= 0).sum(1).tolist() if "boxes" in data else [0] * len(pictures)
        arranged = [self.arrange(*as_picture(p).size, visual_tokens, n) for p, n in zip(pictures, objects, strict=True)]
        if pictures and self.instruction_length:
            texts = [text] if isinstance(text, str) else list(text)
            asked = self.instruction_ids(instructions if instructions is not None else [self._asked(t) for t in texts])
            owner = [n for n, row in enumerate(rows) for _ in range(int((row == self.image_token_id).sum()))]
            tiles = torch.tensor([one.tiles for one in arranged])
            data["instruction_ids"] = asked[torch.tensor(owner).repeat_interleave(tiles)]
        shapes = iter([(*as_picture(p).size, visual_tokens, n) for p, n in zip(pictures, objects, strict=True)])
        expanded = [self._expand(row, shapes, max_length, truncation) for row in rows]
        ids, source = [pair[0].tolist() for pair in expanded], [pair[1] for pair in expanded]
        encoded = self.tokenizer.pad(
            {"input_ids": ids, "attention_mask": [[1] * len(i) for i in ids]},
            padding=padding or (len(ids) > 1 and return_tensors is not None),
            padding_side=padding_side,
        )
        data.update(encoded)
        if return_mm_token_type_ids:
            data["mm_token_type_ids"] = [[int(t == self.image_token_id) for t in row] for row in encoded["input_ids"]]
        if "return_offsets_mapping" in wanted:
            spans = [[tuple(span[i]) for i in where] for span, where in zip(tokens["offset_mapping"], source, strict=True)]
            fill = [[(0, 0)] * (len(row) - len(span)) for row, span in zip(encoded["input_ids"], spans, strict=True)]
            data["offset_mapping"] = [f + s if padding_side == "left" else s + f for f, s in zip(fill, spans, strict=True)]
        encoded_batch = BatchFeature(data, tensor_type=return_tensors)
        if pictures and visual_tokens is not None:
            encoded_batch["visual_tokens"] = visual_tokens
        return encoded_batch
