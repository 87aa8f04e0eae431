"""The DejaVu fonts that matplotlib ships, by face and pixel size."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from argus.core.errors import ArgusError

FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Bold",
)  # fmt: skip


@cache
def _folder() -> Path:
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ArgusError("matplotlib, whose fonts the text domains use, is not installed", hint="pip install argus-vl")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@lru_cache(512)
def font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    """A face of `FACES` at an em size in pixels."""
    # The basic layout engine is part of Pillow; the other one, where it is installed, sets letters differently.
    return ImageFont.truetype(str(_folder() / f"{face}.ttf"), pixels, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(65536)
def extent(face: str, pixels: int, text: str) -> tuple[int, int, int, int]:
    """Ink box (left, top, right, bottom) of a text drawn at (0, 0), in pixels."""
    left, top, right, bottom = font(face, pixels).getbbox(text)
    return int(left), int(top), int(-(-right // 1)), int(-(-bottom // 1))
