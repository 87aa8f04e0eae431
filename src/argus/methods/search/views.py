"""How parts of a picture are shown to a model (ZoomEye, arXiv 2411.16044).

`local` is for models with one fixed input size: a part alone, or the whole picture padded to a square. `global_local` is for
models that read several pictures: the whole with a frame round the part, and the part enlarged. A part is shown at no less
than the encoder's input side, so a small node brings its surroundings:

    side = scale * max(node's side, smallest) on each axis, round the node's centre, clipped to the picture

Of several parts, those whose boxes, each 50 px larger on every side, overlap are merged; each of what is left is framed, and the
crop is the box round all. Two far parts of a local model (union over 1000 px) are pasted side by side instead: in the union
neither would be readable. Constants are the published code's; resizing to the input side is left to the model's processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from PIL import Image, ImageDraw

from argus.methods.search.base import View
from argus.methods.search.tree import Node

Corners = tuple[int, int, int, int]  # x1, y1, x2, y2
Kind = Literal["local", "global_local"]

MARGIN = 50  # pixels between two parts that are still merged
FAR = 1000  # pixels of a union whose two parts are pasted side by side
FRAME = 120  # a frame is 1/120 of the square's side wide


class Views:
    """Views of one picture's parts.

    Args:
        picture: the whole.
        name: the picture's name.
        kind: local or global_local.
        smallest: the encoder's input side.
        scale: how much larger than a node its crop is.
        fill: colour of padding.
        frame: colour of frames.
        prefix: text that says what the two pictures of global_local are.
    """

    def __init__(
        self,
        picture: Image.Image,
        name: str,
        kind: Kind,
        smallest: int,
        scale: float,
        fill: tuple[int, int, int],
        frame: str,
        prefix: str,
    ) -> None:
        self.picture, self.name, self.kind, self.smallest = picture, name, kind, smallest
        self.scale, self.fill, self.frame, self.prefix = scale, fill, frame, prefix

    def of(self, nodes: Sequence[Node]) -> View:
        """The view of some nodes; of none, or of the root alone, the whole picture."""
        if all(node.depth == 0 for node in nodes):
            return View(self.name, (self.square if self.kind == "local" else self.picture,))
        boxes = merged([self.patch(node) for node in nodes])
        name = f"{self.name}@{';'.join(','.join(map(str, box)) for box in boxes)}"
        if self.kind == "global_local":
            return View(name, (self.framed(boxes), self.picture.crop(union(boxes))), self.prefix)
        x1, y1, x2, y2 = union(boxes)
        if len(boxes) == 2 and max(x2 - x1, y2 - y1) > FAR:
            return View(name, (self.pasted(*sorted(boxes)),))
        return View(name, (self.picture.crop((x1, y1, x2, y2)),))

    def patch(self, node: Node) -> Corners:
        """What is shown of a node."""
        x, y, w, h = node.box
        x1, x2 = self._span(x, w, self.picture.width)
        y1, y2 = self._span(y, h, self.picture.height)
        return x1, y1, x2, y2

    def _span(self, start: int, length: int, end: int) -> tuple[int, int]:
        side = int(self.scale * max(length, self.smallest))
        low = max(0, start + length // 2 - side // 2)
        return low, min(low + side, end)

    @property
    def offset(self) -> tuple[int, int]:
        """Where the picture lies in the square."""
        side = max(self.picture.size)
        return (side - self.picture.width) // 2, (side - self.picture.height) // 2

    @cached_property
    def square(self) -> Image.Image:
        """The picture padded to a square; itself if it is one."""
        if self.picture.width == self.picture.height:
            return self.picture
        square = Image.new("RGB", (max(self.picture.size),) * 2, self.fill)
        square.paste(self.picture, self.offset)
        return square

    def framed(self, boxes: Sequence[Corners]) -> Image.Image:
        """The square with a frame round each box, at the encoder's input size."""
        square = self.square.copy()
        width, (dx, dy), draw = max(1, square.width // FRAME), self.offset, ImageDraw.Draw(square)
        for x1, y1, x2, y2 in boxes:
            low = max(0, x1 + dx - width), max(0, y1 + dy - width)
            high = min(square.width, x2 + dx + width) - 1, min(square.height, y2 + dy + width) - 1
            draw.rectangle((*low, *high), outline=self.frame, width=width)
        return square.resize((self.smallest, self.smallest), Image.Resampling.BICUBIC)

    def pasted(self, left: Corners, right: Corners) -> Image.Image:
        """Two parts side by side, as far apart in height as they are, at most the input side."""
        side = self.smallest
        apart = (right[1] + right[3]) // 2 - (left[1] + left[3]) // 2
        half = min(side, max(-side, apart)) // 2
        sheet = Image.new("RGB", (2 * side, 2 * side), self.fill)
        for box, at in ((left, (0, side // 2 - half)), (right, (side, side // 2 + half))):
            sheet.paste(self.picture.crop(box).resize((side, side), Image.Resampling.BICUBIC), at)
        return sheet


def merged(boxes: Sequence[Corners]) -> list[Corners]:
    """Boxes of which no two, each `MARGIN` larger on every side, overlap."""
    kept: list[Corners] = []
    for box in boxes:
        while near := next((other for other in kept if _near(box, other)), None):
            kept.remove(near)
            box = union([box, near])
        kept.append(box)
    return kept


def union(boxes: Sequence[Corners]) -> Corners:
    """The box round all."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _near(a: Corners, b: Corners) -> bool:
    return all(max(a[i], b[i]) - MARGIN < min(a[i + 2], b[i + 2]) + MARGIN for i in (0, 1))
