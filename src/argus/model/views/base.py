"""What a view is: it cuts a picture into tiles and says in which order their visual tokens are read.

A layout is a tuple of typed spans. `Places` are positions that the model fills: cells of tiles and learned vectors between them.
`Text` is written into the prompt as ordinary text. For two tiles of 1 x 2 tokens side by side, behind a view of the whole
picture (tile 0), LLaVA-NeXT's layout is

    (Places([0 1]), Places([2 3 4 5 NEWLINE]))

A cell is numbered tile * rows * columns + row * columns + column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from argus.core.registry import Options

NEWLINE, DIVIDER = -1, -2  # learned vectors: behind a row of cells, and between two parts of a picture
OBJECT = -3  # a token of a box in the picture, made by the connector
BEGIN, BEHIND_WHOLE, COLUMN, ROW, END = -4, -5, -6, -7, -8  # learned vectors around a picture, its whole and its tiles
TASK = -9  # the first of a picture's task tokens; the others count down from it
LEARNED = {
    NEWLINE: "image_newline",
    DIVIDER: "image_divider",
    BEGIN: "image_begin",
    BEHIND_WHOLE: "image_behind_whole",
    COLUMN: "image_column",
    ROW: "image_row",
    END: "image_end",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a picture.

    Args:
        role: `whole` for a view of the whole picture, `part` for a crop of it.
        row, column: place among the parts; 0 for the whole.
        box: the relative box (x1, y1, x2, y2) of the picture that the tile shows; beyond 0..1 where it was padded.
    """

    role: str
    row: int
    column: int
    box: tuple[float, float, float, float]


@dataclass(slots=True)
class Tiles:
    """A picture as tiles.

    Args:
        pixels: (T, H, W, 3) uint8.
        tiles: what each of the T is, in the order in which the encoder reads them.
    """

    pixels: np.ndarray
    tiles: list[Tile]


@dataclass(frozen=True, slots=True)
class Text:
    """Text that belongs to a picture.

    Args:
        text: as the tokenizer reads it.
        tile: the tile that it announces; -1 for none.
    """

    text: str
    tile: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Positions that the model fills.

    Args:
        source: (n,) cells, or the keys of LEARNED, OBJECT and those from TASK downwards.
    """

    source: np.ndarray


Layout = tuple[Text | Places, ...]


def places(layout: Layout) -> np.ndarray:
    """(n,) sources of all positions of a picture that the model fills."""
    return np.concatenate([np.empty(0, dtype=np.int64), *(span.source for span in layout if isinstance(span, Places))])


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """What a picture becomes.

    Args:
        tiles: number of tiles.
        layout: in which order they are read.
        grid: rows and columns of visual tokens of a tile.
        whole: number of the tile that shows the whole picture; -1 for none.
    """

    tiles: int
    layout: Layout
    grid: tuple[int, int]
    whole: int = 0

    def with_objects(self, count: int) -> Arrangement:
        """The same picture with `count` tokens of boxes behind it."""
        return replace(self, layout=(*self.layout, Places(np.full(count, OBJECT)))) if count else self


@dataclass(frozen=True, slots=True)
class Task:
    """Learned tokens that are read behind a picture.

    Args:
        name: what they are to carry.
        tokens: how many positions they have.
        rows: how many learned vectors they are made of: token k is the mean of the k-th group of rows / tokens.
    """

    name: str
    tokens: int
    rows: int


class View(ABC):
    """Subclasses implement `__call__`, `count` and `layout`.

    Attributes:
        learned: which of LEARNED its layouts hold.
        tasks: whose tokens its layouts hold, from TASK downwards.
        tiled: whether the number of positions depends on the picture.
        reads_rows: whether its layouts put tokens in the order of their places in the picture.
    """

    Options: ClassVar[type[Options]]
    learned: tuple[int, ...] = ()
    tasks: tuple[Task, ...] = ()
    tiled: bool = False
    reads_rows: bool = False

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, picture: Image.Image, size: int) -> Tiles:
        """Tiles of side `size` pixels."""

    @abstractmethod
    def count(self, width: int, height: int, size: int) -> int:
        """Number of tiles of side `size` that a picture becomes."""

    @abstractmethod
    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        """In which order a picture is read.

        Args:
            width, height: of the picture, in pixels.
            size: side of a tile in pixels.
            grid: rows and columns of visual tokens of a tile.
        """

    def arrange(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Arrangement:
        """Tiles and layout of a picture; see `layout`."""
        layout = self.layout(width, height, size, grid)
        return Arrangement(self.count(width, height, size), layout, grid, self.whole(width, height, size))

    def whole(self, width: int, height: int, size: int) -> int:
        """Number of the tile that shows the whole picture; -1 for none."""
        return 0

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The relative box of a picture that its first tile shows; beyond 0..1 where it is padded."""
        return 0.0, 0.0, 1.0, 1.0

    def tags(self) -> tuple[str, ...]:
        """All texts with which its layouts may announce a tile."""
        return ()

    def texts(self) -> tuple[str, ...]:
        """All texts that its layouts may hold."""
        return self.tags()
