"""Contact sheets: pictures of a domain with their questions under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from argus.world.domain import Domain, Split
from argus.world.fonts import font

INK, SOFT, TRAP, PAPER = (28, 32, 38), (96, 104, 116), (178, 60, 30), (250, 250, 248)


def contact_sheet(
    domain: Domain,
    out: Path,
    *,
    split: Split = "test",
    start: int = 0,
    count: int = 12,
    size: int = 192,
    questions: int = 4,
) -> Path:
    """Write a PNG with `count` pictures and their questions and answers.

    Args:
        domain: what is shown.
        out: the file.
        size: side of each picture in pixels.
        questions: questions under each picture; traps are marked.
    """
    columns = min(count, max(2, 1200 // (size + 24)))
    width = max(size, 190)
    plain, bold = font("DejaVuSans", 12), font("DejaVuSans-Bold", 12)
    cards = []
    for index in range(start, start + count):
        drawing = domain.draw(split, index, size, questions)
        lines: list[tuple[str, object, tuple[int, int, int]]] = []
        for question in drawing.questions:
            lines += [(line, plain, SOFT) for line in wrap(question.text, plain, width)]
            mark = " (trap)" if question.trap else ""
            lines += [(line, bold, TRAP if question.trap else INK) for line in wrap(question.answer + mark, bold, width)]
        cards.append((side_by_side(drawing.shown, size), lines))
    heights = [size + 34 + 16 * max(len(lines) for _, lines in cards[row : row + columns]) for row in range(0, count, columns)]
    sheet = Image.new("RGB", (24 + columns * (width + 24), 24 + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = 24
    for number, row in enumerate(range(0, count, columns)):
        for column, (picture, lines) in enumerate(cards[row : row + columns]):
            x = 24 + column * (width + 24)
            sheet.paste(picture, (x, y))
            for line, (text, face, colour) in enumerate(lines):
                draw.text((x, y + size + 8 + 16 * line), text, font=face, fill=colour)  # type: ignore[arg-type]
        y += heights[number]
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")
    return out


def side_by_side(pictures: Sequence[np.ndarray], size: int) -> Image.Image:
    """Pictures in rows within a square, in reading order; a single one fills it."""
    columns = math.ceil(math.sqrt(len(pictures)))
    side = size // max(1, columns)
    square = Image.new("RGB", (size, size), PAPER)
    for number, pixels in enumerate(pictures):
        picture = Image.fromarray(pixels)
        square.paste(
            picture if columns == 1 else picture.resize((side - 2, side - 2)), (number % columns * side, number // columns * side)
        )
    return square


def wrap(text: str, face: object, width: int) -> list[str]:
    """Text broken at spaces into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width or not lines[-1]:  # type: ignore[attr-defined]
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
