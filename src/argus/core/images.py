"""Pictures from disk or memory, with limits: a picture that is missing, torn or too large gives a clear error.

The header is read first, so that a picture of a hundred megapixels is refused before a byte of it is decoded.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from argus.core.errors import DataError, nearest

MAX_PIXELS = 64_000_000


def load_image(
    source: Path | str | bytes | Image.Image, *, where: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """A picture as RGB, upright, transparency over white.

    Args:
        source: path, encoded bytes, or a decoded picture.
        where: what to name in an error beside the file.
        max_pixels: largest width x height that is decoded.

    Raises:
        DataError: missing file, not a picture, torn, or too large.
    """
    if isinstance(source, Image.Image):
        return source if source.mode == "RGB" else _rgb(source)
    if isinstance(source, str):
        source = Path(source)
    name = str(source) if isinstance(source, Path) else "picture"
    place = f"{where}, {name}" if where else name
    if isinstance(source, Path) and not source.is_file():
        beside = [p.name for p in source.parent.iterdir()] if source.parent.is_dir() else []
        raise DataError(
            "there is no such picture" if source.parent.is_dir() else f"there is no folder {source.parent}",
            where=place,
            hint=nearest(source.name, beside) if beside else None,
        )
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(stream) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise DataError(
                        f"the picture has {width} x {height} = {width * height / 1e6:.0f} megapixels, "
                        f"more than the limit of {max_pixels / 1e6:.0f}",
                        where=place,
                        hint="Scale it down first.",
                    )
                picture.load()
                return _rgb(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise DataError(f"the picture is larger than the limit of {max_pixels / 1e6:.0f} megapixels", where=place) from None
    except UnidentifiedImageError:
        raise DataError("this is not a picture that can be read (PNG, JPEG, WebP, ...)", where=place) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"the picture cannot be decoded: {error}", where=place) from None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.point(lambda v: v / 256).convert("L")  # 16 bit gray: the high byte
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")


def encode_png(picture: Image.Image) -> bytes:
    """A picture as PNG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
