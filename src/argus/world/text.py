"""Words of the world, and text laid out with a box for every character.

A scene holds text as `Line`s in 1/960 of the side; `draw_lines` renders them at any size and `character_cells` says which
character lies on each cell of a grid, measured at the reference size of 96 px at which the models read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import ImageDraw

from argus.world.domain import CHARACTERS
from argus.world.fonts import extent, font

UNIT = 960
REFERENCE = 96  # side in pixels at which character boxes are measured
LEGIBLE = 10  # smallest font size in pixels that is measured; smaller text is shown in larger pictures and scaled from it
WORDS = tuple(
    """
    able acid aged also area army away baby back ball band bank base bath bean bear beat bell belt bend best
    bike bird bite blue boat body bold bone book boot born boss both bowl brick bring brown bulb burn bus bush
    cake call calm camp card care cart case cash cat cave chair chin city clay clock cloud coal coat code coin
    cold cook cool copy corn cost crab crow cup dark data dawn deck deep desk dial dice dish dock dog door dot
    dove down draw drop drum duck dust duty each ear earth east easy edge egg end even exit face fact fair fall
    farm fast fear feed film find fire fish flag flat flour flow foam fog fold food foot fork form fort four fox
    free frog fruit fuel full game gate gift girl give glad goat gold golf good grass green grid grow half hall
    hand hard hat hawk head heat help hen herb hero high hill hint hold home hook hope horn horse hour house
    huge ice idea inch iron jam jar jazz join joke jump jury keep key kick kind king kite knee knot lady lake
    lamp land lane last late lawn leaf left lemon lens life lift lime line lion list live load lock log long
    loop lost love luck lump lung mail main map mask meal meat menu milk mill mind mine mint mist moon moss moth
    mouse move much mud music nail name navy near neck need nest news night nine noon north nose note nut oak
    oat odd oil old olive open oven owl pace pack page paint pair palm pan park part path pea pear pen piano pig
    pine pink plan plate play plum poem pond pony pool port post pot pure queen quick quiet race rail rain ramp
    read red rest rice ride ring river road rock roof room root rope rose row rug run rust safe sail salt same
    sand sea seed ship shoe shop sign silk sing six skin sky slow small snow soap sock soft song soup south
    spoon star stem step stone sugar suit sun swan tail tall tank tea team ten tent thin tide tiger time tin toe
    tomb tool top torch tour town toy train tree trip truck tube tune twig two type unit vase vast vein verb
    very vest view vine vote wage walk wall warm wash wave wax weed week well west wet whale wheat wheel white
    wide wife wild wind wine wing wire wise wolf wood wool word work worm yard year yolk zebra zero zone zoo
    """.split()
)
NAMES = tuple("Ann Ben Cat Dan Eve Fay Gus Hal Ida Jim Kay Leo Max Ned Oz Pam Ray Sue Tim Una Vic Wes Zoe".split())


@dataclass(frozen=True, slots=True)
class Line:
    """A run of text; x, y is its origin (left, top of the em box), `em` its size, in 1/960 of the side."""

    text: str
    x: int
    y: int
    em: int
    face: str


@lru_cache(65536)
def measure(text: str, em: int, face: str) -> tuple[int, int, int, int]:
    """Ink box of a text at the origin, in 1/960, as it is at the reference size."""
    pixels = max(LEGIBLE, round(em * REFERENCE / UNIT))
    scale = em / pixels
    left, top, right, bottom = (round(v * scale) for v in extent(face, pixels, text))
    return left, top, right, bottom


def ink(line: Line) -> tuple[float, float, float, float]:
    """Relative ink box of a line."""
    left, top, right, bottom = measure(line.text, line.em, line.face)
    return (line.x + left) / UNIT, (line.y + top) / UNIT, (line.x + right) / UNIT, (line.y + bottom) / UNIT


def draw_lines(draw: ImageDraw.ImageDraw, lines: Sequence[Line], size: int, colour: tuple[int, int, int]) -> None:
    """Draw lines in one colour on a picture of `size` pixels."""
    for line in lines:
        pixels = max(6, round(line.em * size / UNIT))
        draw.text(
            (round(line.x * size / UNIT), round(line.y * size / UNIT)),
            line.text,
            font=font(line.face, pixels),
            fill=colour,
        )


def character_cells(lines: Sequence[Line], grid: int) -> np.ndarray:
    """Which character covers most of each cell: int64 (grid, grid), 1 + index in `CHARACTERS`, 0 for none.

    A character counts where its advance box covers at least three tenths of the cell's width and its line half of the
    cell's height, or where it is narrower than that and lies inside.
    """
    cell = UNIT / grid
    found = np.zeros((grid, grid), dtype=np.int64)
    most = np.zeros((grid, grid))
    for line in lines:
        edges = advances(line.text, line.em, line.face)
        _, top, _, bottom = measure(line.text, line.em, line.face)
        y0, y1 = line.y + top, line.y + bottom
        for at, character in enumerate(line.text):
            index = CHARACTERS.find(character)
            if index < 0:
                continue
            x0, x1 = line.x + edges[at], line.x + edges[at + 1]
            for row in range(max(0, int(y0 // cell)), min(grid - 1, int((y1 - 1) // cell)) + 1):
                height = min(y1, (row + 1) * cell) - max(y0, row * cell)
                if height < 0.5 * min(cell, y1 - y0):
                    continue
                for column in range(max(0, int(x0 // cell)), min(grid - 1, int((x1 - 1) // cell)) + 1):
                    width = min(x1, (column + 1) * cell) - max(x0, column * cell)
                    if width >= 0.3 * min(cell, x1 - x0) and width > most[row, column]:
                        most[row, column] = width
                        found[row, column] = index + 1
    return found


@lru_cache(65536)
def advances(text: str, em: int, face: str) -> tuple[int, ...]:
    """Left edge of each character and the right end, in 1/960, at the reference size."""
    pixels = max(LEGIBLE, round(em * REFERENCE / UNIT))
    scale = em / pixels
    return tuple(round(font(face, pixels).getlength(text[:i]) * scale) for i in range(len(text) + 1))


@lru_cache(1)
def _alike() -> dict[str, tuple[str, ...]]:
    """The lexicon cut into groups of about six words of one length that look alike."""
    groups: dict[str, tuple[str, ...]] = {}
    for length in sorted({len(word) for word in WORDS}):
        free = [word for word in WORDS if len(word) == length]
        while free:
            size = -(-len(free) // max(1, len(free) // 6))  # six, or a little more, so that no word stays over
            first = free[0]
            nearest = sorted(free, key=lambda other: -sum(a == b for a, b in zip(first, other, strict=True)))[:size]
            groups.update(dict.fromkeys(nearest, tuple(nearest)))
            free = [word for word in free if word not in groups]
    return groups


def lookalikes(word: str) -> tuple[str, ...]:
    """The words of the lexicon that look like this one, itself among them.

    They form a group: each of them has the same lookalikes, so that a list of them does not tell which one it was made for.
    """
    return _alike()[word]


def paper(dice_value: int, tint: tuple[int, int, int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Background and ink colour: two thirds dark on light, one third light on dark, always well apart."""
    dark = dice_value % 3 == 0
    base, pen = (15 + dice_value % 45, 215 + dice_value % 41) if dark else (205 + dice_value % 51, dice_value % 75)
    ground = tuple(min(255, max(0, base + t)) for t in tint)
    return ground, (pen, pen, min(255, pen + abs(tint[0])))  # type: ignore[return-value]
