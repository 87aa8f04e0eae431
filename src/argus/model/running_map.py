"""The token map of the sequence that runs through a composed model.

It is built at prefill and extended at each further chunk or token. Visual tokens are where the prompt has placeholders; which
picture, tile and cell each is say the pictures that were encoded last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from argus.core.errors import ModelError
from argus.model.backbones.fusion import Crossed, block, find, mark
from argus.model.config import ArgusConfig
from argus.model.token_map import ANSWER, PAD, SPECIAL, Filling, TokenMap, chunk_map, filling, mark_tags, plain
from argus.model.visual_tokens import VisualTokens


class RunningMap(VisualTokens):
    """What each position of the sequence so far is."""

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        self.token_map: TokenMap | None = None  # of the sequence that runs through the layers
        self.prompt_length: int | None = None  # while generating: positions from here on are the model's own
        self.prompt_counts: list[int] | None = None  # while generating: placeholders of each prompt
        self.prompt_ids: Tensor | None = None  # while generating, where tiles stay out of the sequence: the prompts
        self._marks: tuple[int, Tensor, Tensor] | None = None  # first position, pictures and tiles of the prompt that runs

    def _placeholders(self, input_ids: Tensor | None, embeds: Tensor, types: Tensor | None) -> Tensor:
        """Where visual tokens belong: bool (B, S)."""
        if input_ids is not None:
            return input_ids == self.config.image_token_id
        if types is not None:
            return types == 1
        word = torch.tensor(self.config.image_token_id, device=embeds.device)
        return (embeds == self.get_input_embeddings()(word)).all(-1)

    def _read_map(
        self,
        visual: Tensor,
        input_ids: Tensor | None,
        mask: Tensor | None,
        labels: Tensor | None,
        past: int,
        crossed: Crossed | None,
    ) -> None:
        """Keep `token_map` for the whole sequence so far: built at prefill, extended at each further chunk or token."""
        batch, length = visual.shape
        known = self.token_map if past else None
        if known is not None and batch % known.kind.shape[0] == 0 and batch > known.kind.shape[0]:
            # A prefix that was computed once and repeated for several continuations.
            rows = torch.arange(known.kind.shape[0], device=visual.device)
            known = known.select(rows.repeat_interleave(batch // known.kind.shape[0]))
        if known is not None and (known.kind.shape[0] != batch or len(known) < past):
            known = None
        if known is not None:
            known = known.slice(0, past)
        elif past:
            known = plain(visual.long()[:, :1].expand(batch, past))  # a cache that was filled elsewhere
        chunk = chunk_map(visual, self._fill(visual, known), known)
        if crossed is not None:
            self._find(input_ids, known, past)
        if self._marks is not None:
            start, image, tile = self._marks
            here = slice(past - start, past - start + length)
            if image[:, here].shape[1] == length:
                image, tile = (m[:, here].repeat_interleave(batch // len(m), 0) for m in (image, tile))
                chunk = mark(chunk, image, tile)
        text = self.config.text_config
        if input_ids is not None:
            ends = text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
            special = [i for i in (text.bos_token_id, *ends) if i is not None]
            for token in special:
                chunk.kind = chunk.kind.masked_fill(input_ids == token, SPECIAL)
            if mask is not None and mask.ndim == 4 and text.pad_token_id is not None and text.pad_token_id not in special:
                chunk.kind = chunk.kind.masked_fill(input_ids == text.pad_token_id, PAD)
        if mask is not None and mask.ndim == 2:
            chunk.kind = chunk.kind.masked_fill(mask[:, -length:] == 0, PAD)
        if labels is not None:
            chunk.role = chunk.role.masked_fill(labels != -100, ANSWER)
        if self.prompt_length is not None and past + length > self.prompt_length:
            chunk.role[:, max(self.prompt_length - past, 0) :] = ANSWER
        self.token_map = known.join(chunk) if known is not None else chunk
        if self.config.tag_length and self.fusion == "decoder" and visual.any():
            self.token_map = mark_tags(self.token_map, self.config.tag_length)

    def _find(self, input_ids: Tensor | None, known: TokenMap | None, past: int) -> None:
        """Find the pictures that were encoded last in the text of the prompt.

        Raises:
            ModelError: there is no text, or a picture is not in it.
        """
        ids = self.prompt_ids if self.prompt_ids is not None else input_ids
        if ids is None:
            raise ModelError("pictures are found by what is written for them, and the model was given only embeddings")
        texts, word = self.config.picture_texts, self.config.image_token_id
        image, tile = find(ids, [block(p, texts, word) for p in self._pictures or []])
        if known is not None:
            before = known.image[:: len(known.kind) // len(ids)].amax(1, keepdim=True) + 1
            image = torch.where(image < 0, image, image + before)
        self._marks = past, image, tile

    def _fill(self, visual: Tensor, known: TokenMap | None) -> Filling | tuple[int, int]:
        """What fills the placeholders `visual` (B, S), and those of the prompts' later chunks."""
        if self._pictures is None:
            return self._grid
        batch = len(visual)
        if self._filling is None:
            counts = self.prompt_counts or visual.sum(1).tolist()
            copies = batch // len(counts)  # beams
            before = known.select(torch.arange(0, batch, copies)) if known is not None else None
            try:
                self._filling = filling(self._pictures, counts, before)
            except ValueError as error:
                raise ModelError(str(error), hint="Prepare text and pictures in one call of the processor.") from None
        rows = len(self._filling.cells)
        if rows == batch or not visual.any():
            return self._filling
        return self._filling.select(torch.arange(rows).repeat_interleave(batch // rows))
