"""Pictures -> the tiles that the vision tower reads, with Pillow and numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from argus.core.errors import DataError
from argus.core.registry import build
from argus.model.config import ArgusConfig
from argus.model.views.base import View


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
        view, pictures = self.view_component, [as_picture(image) for image in flat(images)]
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


def flat(images: Any) -> list[Any]:
    """Pictures of nested lists, in reading order."""
    if isinstance(images, list | tuple):
        return [one for image in images for one in flat(image)]
    return [images]


def as_picture(image: Any) -> Image.Image:
    """The RGB picture of a PIL image, or of a uint8 array (H, W, 3) or (3, H, W).

    Raises:
        DataError: anything else.
    """
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    array = np.asarray(image)
    if array.ndim != 3 or array.dtype != np.uint8:
        raise DataError(f"a picture must be a PIL image or a uint8 array (H, W, 3), not {array.dtype} {array.shape}")
    if array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    return Image.fromarray(array)


AutoImageProcessor.register(ArgusConfig, slow_image_processor_class=ArgusImageProcessor, exist_ok=True)
