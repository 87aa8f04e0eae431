"""Text and pictures -> the tensors a composed model reads.

The image processor needs Pillow and numpy alone. One function, `image_token_count`, says how many positions a picture becomes;
the processor writes as many placeholders, with the view's text between them, and the model refuses any other number. Nothing
is ever cut inside a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from argus.core.errors import DataError, UnsupportedError
from argus.core.images import load_image
from argus.core.registry import build, check_options
from argus.core.sample import Sample
from argus.model.backbones.fusion import Fusion, block, find, fused, mark
from argus.model.boxes import Box, BoxOptions, BoxSource, filled, in_frame
from argus.model.composed import ArgusConfig, ArgusModel
from argus.model.connectors.base import budget_grid
from argus.model.encoders.transformers_tower import pixel_statistics
from argus.model.token_map import ANSWER, PAD, SPECIAL, TokenMap, chunk_map, filling, mark_tags
from argus.model.views.base import Arrangement, Text, View, places

# `{% generation %}` marks what the model says, so that assistant masks come from the template itself.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set who = '' %}"
    "{% elif message['role'] == 'user' %}{% set who = 'User: ' %}"
    "{% else %}{% set who = 'Assistant:' %}{% endif %}"
    "{{ who }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ eos_token }}{% endgeneration %}{{ '\n' }}"
    "{% else %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


INSTRUCTION = "instruction_tokenizer"  # folder of the tokenizer of the text tower that reads the instruction


class ArgusImageProcessor(BaseImageProcessor):
    """Pictures -> normalised tiles.

    Args:
        size: side of a tile in pixels.
        patch_size: side of a patch in pixels.
        view: {name: options} of the view that cuts tiles.
        image_mean, image_std: normalisation of the vision tower.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012

    def __init__(
        self,
        size: int = 96,
        patch_size: int = 8,
        view: dict[str, dict[str, Any]] | None = None,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.25, 0.25, 0.25),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.patch_size = size, patch_size
        self.view = view or {"square": {}}
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        return self.preprocess(images, **kwargs)

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Tiles of pictures.

        Args:
            images: a PIL picture, a uint8 array (H, W, 3), or a list of them (lists of lists are read in order).

        Returns:
            pixel_values (T, 3, size, size) float32; with a view of several tiles also image_sizes (P, 2), height and width.
        """
        view, pictures = self.view_component, [_picture(image) for image in _flat(images)]
        if not pictures:
            raise DataError("no picture to process")
        pixels = np.concatenate([view(picture, self.size).pixels for picture in pictures])
        data = {"pixel_values": normalise(pixels, self.image_mean, self.image_std)}
        if view.tiled:
            data["image_sizes"] = torch.tensor([picture.size[::-1] for picture in pictures])
        return BatchFeature(data)

    @property
    def view_component(self) -> View:
        """The view that cuts tiles."""
        return build("view", *next(iter(self.view.items())))


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (T, H, W, 3) -> float32 (T, 3, H, W): (p / 255 - mean) / std.

    Tile by tile, so that the three passes over a tile stay in the cache.
    """
    width = pixels.shape[2]
    x = torch.empty(pixels.shape)
    centre, scale = ((torch.tensor(v) * 255).repeat(width) for v in (mean, std))  # (W 3,)
    for out, tile in zip(x, torch.from_numpy(np.require(pixels, requirements=["C", "W"])), strict=True):
        out.view(-1, 3 * width).copy_(tile.view(-1, 3 * width)).sub_(centre).div_(scale)
    return x.permute(0, 3, 1, 2)


class ArgusProcessor(ProcessorMixin):
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

    def tile_grid(self, visual_tokens: int | None = None) -> tuple[int, int]:
        """Rows and columns of visual tokens of a tile; of so many where the connector can choose.

        Raises:
            UnsupportedError: it cannot, or not so many.
        """
        return (self.grid[0], self.grid[1]) if visual_tokens is None else budget_grid(visual_tokens, self.most_tokens)

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
        pictures = list(_flat(images)) if images is not None else []
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
        arranged = [self.arrange(*_picture(p).size, visual_tokens, n) for p, n in zip(pictures, objects, strict=True)]
        if pictures and self.instruction_length:
            texts = [text] if isinstance(text, str) else list(text)
            asked = self.instruction_ids(instructions if instructions is not None else [self._asked(t) for t in texts])
            owner = [n for n, row in enumerate(rows) for _ in range(int((row == self.image_token_id).sum()))]
            tiles = torch.tensor([one.tiles for one in arranged])
            data["instruction_ids"] = asked[torch.tensor(owner).repeat_interleave(tiles)]
        shapes = iter([(*_picture(p).size, visual_tokens, n) for p, n in zip(pictures, objects, strict=True)])
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
        return filled([in_frame(some, view.frame(*_picture(p).size)) for some, p in zip(boxes, pictures, strict=True)])

    def _detected(self, picture: Any) -> Sequence[Box]:
        return self.detector(_picture(picture)) if self.detector is not None else []

    def reading(self, samples: Sequence[Sample], pictures: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
        """What `__call__` takes beside text and pictures, for samples: their instructions and boxes, where those are read."""
        found: dict[str, Any] = {}
        if self.instruction_length:
            found["instructions"] = [sample.instruction() for sample in samples]
        if (source := self.box_source) is not None:
            each = [source(s, [p.size for p in shown]) for s, shown in zip(samples, pictures, strict=True)]
            found["boxes"] = [some for group in each for some in group]
        return found

    def encode(self, samples: Sequence[Sample]) -> BatchFeature:
        """Many samples at once, as a padded batch of tensors.

        Samples that end with a question are prompted for the answer. Samples that end with an answer also give `labels` (B, S):
        the ids that the assistant says, -100 elsewhere.

        Raises:
            DataError: a picture that cannot be read, or samples of both kinds.
        """
        answered = {s.messages[-1].role == "assistant" for s in samples}
        if len(answered) != 1:
            raise DataError("samples with an answer and samples without one cannot share a batch")
        learn = answered.pop()
        chats, shown = [], []
        for sample in samples:
            shown.append([load_image(p, where=sample.id) for p in sample.images()])
            pictures = iter(shown[-1])
            chats.append(
                [
                    {**m, "content": [{**p, "image": next(pictures)} if p["type"] == "image" else p for p in m["content"]]}
                    for m in sample.chat()
                ]
            )
        batch = self.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=not learn,
            return_assistant_tokens_mask=learn,
            processor_kwargs={"padding": True, **self.reading(samples, shown)},
        )
        if learn:
            said = torch.as_tensor(batch.pop("assistant_masks")).bool()
            batch["labels"] = batch["input_ids"].masked_fill(~said, -100)
        return batch

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


def tag_length(view: View, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the text with which a view announces a tile; 0 where it has none.

    Raises:
        UnsupportedError: tags of different length.
    """
    lengths = {tag: len(tokenizer(tag, add_special_tokens=False)["input_ids"]) for tag in view.tags()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{tag} {n}" for tag, n in sorted(lengths.items(), key=lambda pair: (pair[1], pair[0])))
        raise UnsupportedError(
            f"the tags of tiles must have equally many tokens; this tokenizer makes of them: {told}.",
            hint="Choose another kind of tags, or a thumbnail_tag of the others' length.",
        )
    return max(lengths.values(), default=0)


def picture_texts(view: View, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Ids of each text that a view may write."""
    return {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in view.texts()}


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
    )


def _flat(images: Any) -> list[Any]:
    if isinstance(images, list | tuple):
        return [one for image in images for one in _flat(image)]
    return [images]


def _picture(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    array = np.asarray(image)
    if array.ndim != 3 or array.dtype != np.uint8:
        raise DataError(f"a picture must be a PIL image or a uint8 array (H, W, 3), not {array.dtype} {array.shape}")
    if array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    return Image.fromarray(array)


AutoImageProcessor.register(ArgusConfig, slow_image_processor_class=ArgusImageProcessor, exist_ok=True)
AutoProcessor.register(ArgusConfig, ArgusProcessor, exist_ok=True)
