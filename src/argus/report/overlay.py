"""Pictures that show what a technique kept (dropped patches are dimmed), and where a search went (numbered boxes)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from argus.core.errors import UnsupportedError

DIM = 0.22  # brightness left of what was dropped
EDGE = (255, 214, 10)  # line between kept and dropped
VISITED, FOUND = (60, 190, 255), (255, 40, 60)  # boxes of a search


def lit(picture: Image.Image, kept: Iterable[int], grid: tuple[int, int], scale: int = 1) -> Image.Image:
    """The picture with its kept patches lit.

    Args:
        picture: what the model saw.
        kept: raster indices of the kept patches, 0 .. rows * columns - 1.
        grid: (rows, columns) of the patches laid over the picture.
        scale: enlargement, without smoothing so that patches stay recognisable.

    Raises:
        UnsupportedError: an index outside of the grid.
    """
    rows, columns = grid
    mask = np.zeros(rows * columns, dtype=bool)
    indices = np.fromiter(kept, dtype=np.int64)
    outside = indices[(indices < 0) | (indices >= mask.size)]
    if outside.size:
        raise UnsupportedError(f"patch {outside[0]} is outside of a grid of {rows} x {columns} patches")
    mask[indices] = True
    large = picture.convert("RGB").resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    pixels = np.asarray(large, dtype=np.float32)  # (H, W, 3)
    seen = _spread(mask.reshape(grid), large.height, large.width)  # (H, W)
    gray = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    shown = np.where(seen[..., None], pixels, gray[..., None] * DIM).astype(np.uint8)
    if scale > 1:
        shown[_border(seen)] = EDGE
    return Image.fromarray(shown)


def way(picture: Image.Image, visited: Iterable[Sequence[int]], found: Iterable[Sequence[int]], scale: int = 1) -> Image.Image:
    """The picture with the way of a search.

    Args:
        picture: what was searched.
        visited: boxes (x, y, w, h) in the order of the visits; each carries its number, from 1.
        found: boxes from which the question was answered, drawn thicker.
        scale: enlargement.
    """
    large = picture.convert("RGB").resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    draw, font = ImageDraw.Draw(large), ImageFont.load_default(size=11)

    def outline(box: Sequence[int], colour: tuple[int, int, int], width: int) -> tuple[int, int]:
        x, y, w, h = (scale * v for v in box)
        draw.rectangle((x, y, x + w - 1, y + h - 1), outline=colour, width=width)
        return x, y

    for number, box in enumerate(visited, 1):
        x, y = outline(box, VISITED, 1)
        shift = 12 * (number % 3)  # nested boxes share corners
        draw.text((x + 3 + shift, y + 1), str(number), fill=VISITED, font=font, stroke_width=1, stroke_fill="black")
    for box in found:
        outline(box, FOUND, 3)
    return large


def strip(pictures: Sequence[tuple[str, Image.Image]], columns: int = 0, gap: int = 12) -> Image.Image:
    """Captioned pictures side by side on white.

    Args:
        pictures: (caption, picture); a caption may have several lines.
        columns: pictures per row; 0 puts all in one.
        gap: pixels between them.
    """
    columns = min(columns or len(pictures), len(pictures))
    font = ImageFont.load_default(size=13)
    width = max(max(p.width for _, p in pictures), 96)
    captions = [_wrapped(caption, font, width) for caption, _ in pictures]
    height = max(p.height for _, p in pictures)
    text = max(caption.count("\n") + 1 for caption in captions) * 17
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + text + gap + 4) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, ((_, picture), caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = gap + (i % columns) * (width + gap), gap + (i // columns) * (height + text + gap + 4)
        sheet.paste(picture, (x, y))
        draw.multiline_text((x, y + picture.height + 4), caption, fill=(29, 35, 48), font=font, spacing=3)
    return sheet


def _spread(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A (rows, columns) mask over (height, width) pixels, each with the value of the cell that holds its centre."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[rows[:, None], columns[None, :]]


def _border(seen: np.ndarray) -> np.ndarray:
    """Kept pixels beside a dropped one (4-neighbourhood)."""
    padded = np.pad(seen, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return seen & ~inside


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)
