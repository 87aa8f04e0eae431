"""A picture as a tree of ever smaller parts, in whole pixels.

A part is cut while a side of it is at least `smallest` (the side of the encoder's input: below that, enlarging shows nothing
new). The cut follows its shape, so that parts stay near to squares:

    columns x rows    h/w >= 2    h/w <= 1/2    else
    split 4           1 x 4       4 x 1         2 x 2
    split 9           2 x 4       4 x 2         3 x 3
    split 16          2 x 8       8 x 2         4 x 4

Strides are whole divisions; the last column and row take what is left, so the leaves tile the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

Box = tuple[int, int, int, int]  # x, y, w, h in pixels of the picture

CUTS = {4: ((1, 4), (4, 1), (2, 2)), 9: ((2, 4), (4, 2), (3, 3)), 16: ((2, 8), (8, 2), (4, 4))}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A part of the picture: its box, its depth (the whole picture has 0), its parts row by row (none in a leaf)."""

    box: Box
    depth: int
    children: tuple[Node, ...]

    def nodes(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.nodes()

    def leaves(self) -> Iterator[Node]:
        """The nodes without parts."""
        return (node for node in self.nodes() if not node.children)


def grow(box: Box, smallest: int, split: int = 4, depth: int = 0) -> Node:
    """The tree of a box.

    Args:
        box: what is cut; the picture is (0, 0, width, height).
        smallest: a node whose sides are both below this is a leaf.
        split: parts per cut: 4, 9 or 16.
        depth: depth of its root.
    """
    w, h = box[2:]
    parts = cut(box, split) if max(w, h) >= smallest else []
    return Node(box, depth, tuple(grow(part, smallest, split, depth + 1) for part in parts))


def cut(box: Box, split: int = 4) -> list[Box]:
    """The parts of one box, row by row."""
    x, y, w, h = box
    tall, wide, square = CUTS[split]
    columns, rows = tall if h >= 2 * w else wide if 2 * h <= w else square
    columns, rows = min(columns, w), min(rows, h)  # a strip of few pixels has no more parts than pixels
    xs, ys = _edges(x, w, columns), _edges(y, h, rows)
    return [(left, top, right - left, bottom - top) for top, bottom in pairwise(ys) for left, right in pairwise(xs)]


def _edges(start: int, length: int, parts: int) -> list[int]:
    return [start + i * (length // parts) for i in range(parts)] + [start + length]
