"""Answers in which texts and pictures take turns, written as one text, so that they can be recorded, judged and read back.

    The star moves. <image>a large red star at the top right</image> Then it turns blue. <image>data:image/png;base64,...</image>

What stands in a tag is a picture itself, as a data URI, or a description of one, as a model writes that understands pictures
and makes none: a renderer draws it and the picture takes its place. A description that the renderer cannot draw stays what it
is, in words; a data URI that holds no picture is left out, as a file that is not there.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO

import numpy as np
from PIL import Image

from argus.core.errors import DataError
from argus.core.formats.pictures import from_base64, picture_bytes
from argus.core.images import load_image
from argus.core.sample import ImagePart, Part, TextPart

Renderer = Callable[[str], np.ndarray | None]  # a description -> (H, W, 3) uint8

_TAG = re.compile(r"<image>(.*?)</image>", re.DOTALL)
_DATA = "data:image/"


def read(text: str, render: Renderer) -> list[Part]:
    """The parts of an answer, in their order."""
    parts: list[Part] = []
    for place, piece in enumerate(_TAG.split(text)):
        piece = piece.strip()
        if not piece:
            continue
        if place % 2 == 0:
            parts.append(TextPart(piece))
        elif piece.startswith(_DATA):
            with suppress(DataError):
                data = from_base64(piece.partition(",")[2], "answer")
                load_image(data)
                parts.append(ImagePart(data))
        else:
            pixels = render(piece)
            parts.append(TextPart(piece) if pixels is None else ImagePart(Image.fromarray(pixels)))
    return parts


def written(parts: Sequence[Part]) -> str:
    """Parts as one text; the inverse of `read`."""
    texts = []
    for part in parts:
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, ImagePart):
            data = picture_bytes(part.image)
            with Image.open(BytesIO(data)) as image:
                kind = (image.format or "png").lower()
            texts.append(f"<image>{_DATA}{kind};base64,{base64.b64encode(data).decode()}</image>")
    return " ".join(texts)


def without_pictures(text: str) -> bool:
    """Whether an answer has words alone."""
    return not _TAG.search(text)
