"""What a view is: it cuts a picture into tiles and says how they lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from argus.core.registry import Options


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
        tiles: what each of the T is, in the order in which the language model reads them.
    """

    pixels: np.ndarray
    tiles: list[Tile]


class View(ABC):
    """Subclasses implement `__call__` and `count`."""

    Options: ClassVar[type[Options]]

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, picture: Image.Image, size: int) -> Tiles:
        """Tiles of side `size` pixels."""

    @abstractmethod
    def count(self, width: int, height: int) -> int:
        """Number of tiles that a picture of this size becomes."""
