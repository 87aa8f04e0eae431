"""Pictures inside records: paths, data URIs, base64, and the bytes/path structure of Hugging Face datasets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import Path
from typing import Any

from argus.core.errors import DataError
from argus.core.images import encode_png, load_image
from argus.core.sample import ImagePart, Part, TextPart

MARKER = "<image>"


def read_picture(value: Any, folder: Path, where: str) -> Path | bytes:
    """A picture as a record holds it.

    Args:
        value: path relative to `folder`, data URI, or {"bytes": ..., "path": ...}.

    Raises:
        DataError: none of these.
    """
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise DataError(f"a picture is a path or encoded bytes, not {type(value).__name__}", where=where)
    if value.startswith("data:"):
        return from_base64(value.partition(",")[2], where)
    path = Path(value)
    return path if path.is_absolute() else folder / path


def from_base64(text: str, where: str) -> bytes:
    """Bytes of a base64 text.

    Raises:
        DataError: the text is torn or no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"the picture is not valid base64: {error}", where=where) from None


def picture_bytes(image: Any) -> bytes:
    """Encoded bytes of a sample's picture; files are taken as they are."""
    if isinstance(image, bytes):
        return image
    return image.read_bytes() if isinstance(image, Path) else encode_png(load_image(image))


def store_picture(image: Any, dataset: Path, name: str) -> str:
    """A picture as a path relative to the dataset; decoded and encoded ones are written beside it under `images/`."""
    folder = dataset.parent.resolve()
    if isinstance(image, Path):
        resolved = image.resolve()
        return str(resolved.relative_to(folder)) if resolved.is_relative_to(folder) else str(resolved)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:120]
    data = picture_bytes(image)
    ending = ".jpg" if data[:2] == b"\xff\xd8" else ".webp" if data[8:12] == b"WEBP" else ".png"
    path = folder / "images" / f"{safe}{ending}"
    if path.exists() and path.read_bytes() != data:  # of another dataset in the folder, or of an id that is spelled alike
        path = path.with_stem(f"{safe}_{hashlib.sha256(data).hexdigest()[:12]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"images/{path.name}"


def split_markers(text: str, pictures: list[Any], where: str) -> list[Part]:
    """Text with `<image>` markers as parts; takes pictures from the front of the list.

    Raises:
        DataError: more markers than pictures.
    """
    parts: list[Part] = []
    for index, piece in enumerate(text.split(MARKER)):
        if index:
            if not pictures:
                raise DataError(f"there are more {MARKER} markers than pictures", where=where)
            parts.append(ImagePart(pictures.pop(0)))
        if piece:
            parts.append(TextPart(piece))
    return parts
