"""Text and pictures -> the tensors a composed model reads.

`image_processor` cuts tiles, `placeholders` says how many positions a picture becomes, `prompt_encoding` encodes prompts, and
`chat` samples. Here they become one processor, which also knows what each position of its batches is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase

from argus.model.backbones.fusion import Fusion, block, find, fused, mark
from argus.model.base_model import ArgusModel
from argus.model.boxes import Box
from argus.model.chat import CHAT_TEMPLATE, CLOSED_TEMPLATE, ChatEncoding
from argus.model.config import ArgusConfig
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.image_processor import ArgusImageProcessor
from argus.model.prefix_lm import PrefixLM
from argus.model.token_map import ANSWER, PAD, SPECIAL, TokenMap, chunk_map, filling, mark_tags
from argus.model.views.base import Arrangement
from argus.model.views.texts import picture_texts, tag_length

INSTRUCTION = "instruction_tokenizer"  # folder of the tokenizer of the text tower that reads the instruction


class ArgusProcessor(ChatEncoding):
    """Tokenizer and image processor of a composed model.

    Args:
        image_processor, tokenizer: the two parts.
        grid: rows and columns of visual tokens that a tile becomes behind the connector.
        most_tokens: the most visual tokens per tile that may be asked for; None where the connector gives a fixed number.
        instruction_length: ids of the instruction that the connector reads; 0 where it reads none.
        reads_boxes: whether the connector has a token per box.
        boxes: where the boxes of samples come from, see `BoxOptions`.
        fusion: how pictures enter the language model: in its sequence, by cross-attention, or the thumbnail in the sequence.
        chat_template: Jinja; `CHAT_TEMPLATE` by default.

    Attributes:
        instruction_tokenizer: that of the text tower which reads the instruction; the language model's where nobody sets another.
        detector: finds boxes in a picture for which none are given.
    """

    def __init__(
        self,
        image_processor: ArgusImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        grid: Sequence[int] = (12, 12),
        most_tokens: int | None = None,
        instruction_length: int = 0,
        reads_boxes: bool = False,
        boxes: dict[str, Any] | None = None,
        fusion: Fusion = "decoder",
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token = "<image>"
        self.image_token_id: Any = tokenizer.convert_tokens_to_ids(self.image_token) if tokenizer is not None else None
        self.grid, self.most_tokens, self.fusion = list(grid), most_tokens, fusion
        self.instruction_length, self.reads_boxes, self.boxes = instruction_length, reads_boxes, boxes
        self.instruction_tokenizer: Any = tokenizer
        self.detector: Callable[[Image.Image], Sequence[Box]] | None = None
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def token_map(self, inputs: Mapping[str, Any]) -> TokenMap:
        """What each position of a batch (B, S) is: the same map that the model keeps, before it runs.

        Control tokens are the tokenizer's; `labels`, where the batch has them, mark the answer.

        Raises:
            ValueError: the pictures' sizes do not fit the placeholders.
        """
        ids = torch.as_tensor(inputs["input_ids"])
        visual = ids == self.image_token_id
        view, size = self.image_processor.view_component, self.image_processor.size
        grid = self.tile_grid(inputs.get("visual_tokens"))
        if view.tiled or self.reads_boxes:
            sizes = torch.as_tensor(inputs.get("image_sizes", ())).tolist()
            pictures = [fused(view.arrange(width, height, size, grid), self.fusion) for height, width in sizes]
            if self.reads_boxes:
                counts = (torch.as_tensor(inputs["boxes"])[..., 0] >= 0).sum(1).tolist() if "boxes" in inputs else []
                pictures = [view.arrange(size, size, size, grid).with_objects(count) for count in counts]
            found = chunk_map(visual, filling(pictures, visual.sum(1).tolist()))
            if self.fusion == "decoder":
                found = mark_tags(found, tag_length(view, self.tokenizer))
            else:
                found = mark(found, *self._found(ids, pictures))
        else:
            found = chunk_map(visual, grid)
        special = set(self.tokenizer.all_special_ids) - {self.image_token_id, self.tokenizer.pad_token_id}
        found.kind = found.kind.masked_fill(torch.isin(ids, torch.tensor(sorted(special))), SPECIAL)
        if (mask := inputs.get("attention_mask")) is not None:
            found.kind = found.kind.masked_fill(torch.as_tensor(mask) == 0, PAD)
        if (labels := inputs.get("labels")) is not None:
            found.role = found.role.masked_fill(labels != -100, ANSWER)
        return found

    def _found(self, ids: Tensor, pictures: Sequence[Arrangement]) -> tuple[Tensor, Tensor]:
        """Picture and tile (B, S) of the positions of ids, where pictures are known by what is written for them."""
        texts = picture_texts(self.image_processor.view_component, self.tokenizer)
        return find(ids, [block(picture, texts, self.image_token_id) for picture in pictures])

    def picture_end(self, ids: Sequence[int], sizes: Sequence[tuple[int, int]], visual_tokens: int | None = None) -> int:
        """How many of the ids of one sequence there are up to the last that belongs to a picture; sizes as for `arrange`."""
        row = torch.tensor([ids])
        belongs = row == self.image_token_id
        if self.fusion != "decoder":
            belongs = self._found(row, [self.arrange(*size, visual_tokens) for size in sizes])[0] >= 0
        return int((belongs[0].nonzero() + 1).max()) if belongs.any() else 0

    @property
    def model_input_names(self) -> list[str]:
        names = ["input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_sizes"]
        return [*names, *(["instruction_ids"] if self.instruction_length else []), *(["boxes"] if self.reads_boxes else [])]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the instruction's tokenizer goes into a folder of its own."""
        if self.instruction_length:
            self.instruction_tokenizer.save_pretrained(Path(save_directory) / INSTRUCTION)
        return super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers."""
        made = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if made.instruction_length:
            kept = {k: kwargs[k] for k in ("revision", "cache_dir", "token") if k in kwargs}
            made.instruction_tokenizer = AutoTokenizer.from_pretrained(
                pretrained_model_name_or_path, subfolder=INSTRUCTION, **kept
            )
        return made


def processor_for(model: ArgusModel, tokenizer: PreTrainedTokenizerBase, boxes: dict[str, Any] | None = None) -> ArgusProcessor:
    """The processor of a composed model: sizes, normalisation and grid are read from its parts."""
    config: ArgusConfig = model.config
    mean, std = pixel_statistics(config.vision_config)
    image_processor = ArgusImageProcessor(model.vision_tower.image_size, model.vision_tower.patch_size, config.view, mean, std)
    connector = model.multi_modal_projector
    return ArgusProcessor(
        image_processor,
        tokenizer,
        grid=model.visual_grid(),
        most_tokens=connector.most_tokens,
        instruction_length=connector.options.text_length if connector.reads_instruction else 0,
        reads_boxes=connector.reads_boxes,
        boxes=boxes,
        fusion=model.fusion,
        chat_template=CLOSED_TEMPLATE if isinstance(model.language_model, PrefixLM) else None,
    )


AutoProcessor.register(ArgusConfig, ArgusProcessor, exist_ok=True)
