"""The tree of a picture tiles it exactly, whatever its size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.methods.search.tree import Box, Node, cut, grow


def brute(x: int, y: int, w: int, h: int, smallest: int, depth: int = 0) -> list[tuple[Box, int]]:
    """Boxes and depths by the rule as the paper states it, split 4, parents first."""
    found = [((x, y, w, h), depth)]
    if max(w, h) < smallest:
        return found
    columns, rows = (1, 4) if h / w >= 2 else (4, 1) if h / w <= 0.5 else (2, 2)
    for r in range(min(rows, h)):
        for c in range(min(columns, w)):
            width = w // columns if c < columns - 1 else w - (columns - 1) * (w // columns)
            height = h // rows if r < rows - 1 else h - (rows - 1) * (h // rows)
            found += brute(x + c * (w // columns), y + r * (h // rows), width, height, smallest, depth + 1)
    return found


def listed(tree: Node) -> list[tuple[Box, int]]:
    return [(node.box, node.depth) for node in tree.nodes()]


@given(st.integers(8, 400), st.integers(8, 400), st.sampled_from([24, 48, 96]))
def test_boxes_equal_a_recursion_by_hand(width: int, height: int, smallest: int) -> None:
    assert listed(grow((0, 0, width, height), smallest)) == brute(0, 0, width, height, smallest)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([4, 9, 16]))
def test_leaves_tile_the_picture(width: int, height: int, split: int) -> None:
    covered = np.zeros((height, width), dtype=int)
    for leaf in grow((0, 0, width, height), 40, split).leaves():
        x, y, w, h = leaf.box
        assert w > 0
        assert h > 0
        assert max(w, h) < 40
        covered[y : y + h, x : x + w] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize(
    ("size", "nodes", "depth", "leaves", "first", "last"),
    [
        ((1001, 703), 21, 2, 16, (0, 0, 500, 351), (750, 527, 251, 176)),
        ((1400, 500), 21, 2, 16, (0, 0, 350, 500), (1225, 250, 175, 250)),  # h/w <= 0.5: four columns first
        ((3840, 2160), 341, 4, 256, (0, 0, 1920, 1080), (3600, 2025, 240, 135)),
    ],
)
def test_trees_by_hand(size: tuple[int, int], nodes: int, depth: int, leaves: int, first: Box, last: Box) -> None:
    tree = grow((0, 0, *size), 336)
    assert len(list(tree.nodes())) == nodes
    assert max(node.depth for node in tree.nodes()) == depth
    assert len(list(tree.leaves())) == leaves
    assert tree.children[0].box == first
    assert list(tree.leaves())[-1].box == last


@pytest.mark.parametrize(("split", "square", "tall"), [(4, (2, 2), (1, 4)), (9, (3, 3), (2, 4)), (16, (4, 4), (2, 8))])
def test_cuts_follow_the_shape(split: int, square: tuple[int, int], tall: tuple[int, int]) -> None:
    def shape(w: int, h: int) -> tuple[int, int]:
        parts = cut((0, 0, w, h), split)
        return len({p[0] for p in parts}), len({p[1] for p in parts})

    assert shape(100, 100) == shape(100, 199) == shape(199, 100) == square
    assert shape(100, 200) == tall  # exactly 2 is tall already
    assert shape(200, 100) == tall[::-1]


def test_a_small_picture_is_a_leaf() -> None:
    assert grow((0, 0, 335, 200), 336).children == ()
    assert grow((0, 0, 336, 200), 336).children != ()
