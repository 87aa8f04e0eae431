"""Text and pictures -> the tensors a composed model reads.

The image processor needs Pillow and numpy alone. One function, `image_token_count`, says how many positions a picture becomes;
the processor writes as many placeholders, with the view's text between them, and the model refuses any other number. Nothing
is ever cut inside a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from argus.core.errors import DataError, UnsupportedError
from argus.core.images import load_image
from argus.core.registry import build
from argus.core.sample import Sample
from argus.model.composed import ArgusConfig, ArgusModel
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
        chat_template: Jinja; `CHAT_TEMPLATE` by default.
    """

    def __init__(
        self,
        image_processor: ArgusImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        grid: Sequence[int] = (12, 12),
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token = "<image>"
        self.image_token_id: Any = tokenizer.convert_tokens_to_ids(self.image_token) if tokenizer is not None else None
        self.grid = list(grid)
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def arrange(self, width: int | None = None, height: int | None = None) -> Arrangement:
        """Tiles and layout of a picture of this size in pixels; of one tile's size when not given."""
        size = self.image_processor.size
        return self.image_processor.view_component.arrange(width or size, height or size, size, (self.grid[0], self.grid[1]))

    def image_token_count(self, width: int | None = None, height: int | None = None) -> int:
        """Positions of a picture that the model fills: visual tokens and learned separators. The one place that knows."""
        return len(places(self.arrange(width, height).layout))

    def picture_ids(self, width: int | None = None, height: int | None = None) -> list[int]:
        """Token ids of a picture: placeholders, and the text that its view writes between them."""
        ids: list[int] = []
        for span in self.arrange(width, height).layout:
            ids += self._text_ids(span.text) if isinstance(span, Text) else [self.image_token_id] * len(span.source)
        return ids

    def _text_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """What transformers' processor writes in place of one `<image>`."""
        sizes = image_inputs.get("image_sizes")
        height, width = (None, None) if sizes is None else (int(side) for side in sizes[image_idx])
        layout = self.arrange(width, height).layout
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
        **kwargs: Any,
    ) -> BatchFeature:
        """Encode prompts with their pictures.

        Args:
            images: pictures of all prompts, in reading order (a list of lists per prompt is read in order too).
            text: one prompt or several, `<image>` where a picture is shown.
            padding, padding_side: as in transformers; prompts are padded on the left, as generation needs.
            max_length: refuse longer prompts (with `truncation`, cut text behind the last picture).

        Returns:
            input_ids, attention_mask, mm_token_type_ids (B, S), pixel_values (T, 3, H, W), image_sizes (P, 2) where the view
            cuts several tiles.

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
        if text is None:
            return BatchFeature(data, tensor_type=return_tensors)
        wanted = {k: kwargs[k] for k in ("return_offsets_mapping", "sanitize_control_tokens") if kwargs.get(k)}
        tokens = self.tokenizer([text] if isinstance(text, str) else list(text), add_special_tokens=add_special_tokens, **wanted)
        rows = [np.array(row, dtype=np.int64) for row in tokens["input_ids"]]
        shown = sum(int((row == self.image_token_id).sum()) for row in rows)
        if shown != len(pictures):
            raise DataError(f"the prompts show {shown} pictures ('{self.image_token}'), but {len(pictures)} were given")
        sizes = iter([_picture(p).size for p in pictures])
        expanded = [self._expand(row, sizes, max_length, truncation) for row in rows]
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
        return BatchFeature(data, tensor_type=return_tensors)

    def _expand(
        self, row: np.ndarray, sizes: Iterator[tuple[int, int]], longest: int | None, cut: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a prompt with its pictures' written out, and the place in `row` that each comes from."""
        marks = np.flatnonzero(row == self.image_token_id)
        written = [np.array(self.picture_ids(*next(sizes))) for _ in marks]
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
        chats = []
        for sample in samples:
            pictures = iter([load_image(p, where=sample.id) for p in sample.images()])
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
            processor_kwargs={"padding": True},
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
        view, size, grid = self.image_processor.view_component, self.image_processor.size, (self.grid[0], self.grid[1])
        if view.tiled:
            sizes = torch.as_tensor(inputs.get("image_sizes", ())).tolist()
            pictures = [view.arrange(width, height, size, grid) for height, width in sizes]
            found = chunk_map(visual, filling(pictures, visual.sum(1).tolist()))
            found = mark_tags(found, tag_length(view, self.tokenizer))
        else:
            found = chunk_map(visual, grid)
        special = set(self.tokenizer.all_special_ids) - {self.image_token_id, self.tokenizer.pad_token_id}
        found.kind = found.kind.masked_fill(torch.isin(ids, torch.tensor(sorted(special))), SPECIAL)
        if (mask := inputs.get("attention_mask")) is not None:
            found.kind = found.kind.masked_fill(torch.as_tensor(mask) == 0, PAD)
        if (labels := inputs.get("labels")) is not None:
            found.role = found.role.masked_fill(labels != -100, ANSWER)
        return found

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "mm_token_type_ids", "pixel_values", "image_sizes"]


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


def processor_for(model: ArgusModel, tokenizer: PreTrainedTokenizerBase) -> ArgusProcessor:
    """The processor of a composed model: sizes, normalisation and grid are read from its parts."""
    config: ArgusConfig = model.config
    mean, std = pixel_statistics(config.vision_config)
    image_processor = ArgusImageProcessor(model.vision_tower.image_size, model.vision_tower.patch_size, config.view, mean, std)
    return ArgusProcessor(image_processor, tokenizer, grid=model.visual_grid())


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
