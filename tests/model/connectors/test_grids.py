"""Every connector on any grid: odd and oblong ones too, it gives what `tokens` says or refuses with a reason, picture by picture.

Where tokens keep their place, each is made of the patches of its own block alone, which an index map says without the connector.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from argus.core.errors import UnsupportedError
from argus.core.registry import components
from argus.model.connectors.base import Connector, ConnectorContext, build_connector
from argus.model.features import VisualFeatures
from tests.model.connectors.test_qformer import SIZES

WIDTH, TEXT = 8, 6
MAPS = (4, 12)
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "emma": [{"text_length": 8, "pool": 2}],
    "mg_llava": [{"bins": 2}, {"fusion": "concat", "pool": 2}],
    "mlp": [{}, {"pool": 2}, {"pool": 3}],
    "mqt": [{"max_tokens": 5}, {"max_tokens": 4, "key_source": "feature+position"}],
    "ovis": [{"vocabulary": 12}, {"vocabulary": 12, "framed": False, "stride": 2, "chunk": 5}],
    "pixel_shuffle": [{}, {"factor": 3}],
    "pool": [{"side": 2}, {"side": 3, "adaptive": True}],
    "qformer": [{**SIZES, "through": None}],
    "tokenpacker": [{"levels": (0, -1)}, {"levels": (1,), "scale_factor": 3}],
    "x_former": [{**SIZES, "contrastive_width": 5}],
}
CASES = [(row.name, options) for row in components("connector") for options in OPTIONS.get(row.name, [{}])]
GRIDS = st.tuples(st.integers(1, 7), st.integers(1, 7))


def made(name: str, options: dict[str, Any], grid: tuple[int, int]) -> Connector:
    torch.manual_seed(0)
    known = {"grid": grid, "instruction_width": 4, "map_widths": MAPS}
    return build_connector({name: options}, vision_width=WIDTH, text_width=TEXT, **known).eval()


def features(grid: tuple[int, int], batch: int = 2) -> VisualFeatures:
    rows, columns = grid
    states = tuple(torch.randn(batch, 1 + rows * columns, WIDTH) for _ in range(3))
    maps = tuple(torch.randn(batch, w, s * rows, s * columns) for w, s in zip(MAPS, (2, 1), strict=True))
    return VisualFeatures(states[-2][:, 1:], grid, cls=states[-2][:, 0], hidden_states=states, feature_maps=maps)


def part(seen: VisualFeatures, which: slice) -> VisualFeatures:
    assert seen.hidden_states is not None
    assert seen.feature_maps is not None
    states, maps = tuple(s[which] for s in seen.hidden_states), tuple(m[which] for m in seen.feature_maps)
    return VisualFeatures(seen.tokens[which], seen.grid, hidden_states=states, feature_maps=maps)


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
@settings(max_examples=15, deadline=None)
@given(grid=GRIDS)
@torch.no_grad()
def test_any_grid_gives_what_tokens_says_or_is_refused(name: str, options: dict[str, Any], grid: tuple[int, int]) -> None:
    connector = made(name, options, grid)
    count, reason = 0, ""
    try:
        count = math.prod(connector.tokens(grid))
    except UnsupportedError as error:
        reason = error.message
    if not count:
        assert f"{grid[0]} x {grid[1]}" in reason
        return
    seen, words = features(grid), torch.randn(2, 8, 4)
    out = connector(seen, ConnectorContext(words))
    assert out.shape == (2, count, TEXT)
    alone = connector(part(seen, slice(1, 2)), ConnectorContext(words[1:]))
    torch.testing.assert_close(alone[0], out[1], rtol=1e-4, atol=1e-5)


# Connector, options, and the side of the block of patches that becomes one token.
BLOCKS: list[tuple[str, dict[str, Any], int]] = [
    ("linear", {}, 1),
    ("mlp", {}, 1),
    ("mlp", {"pool": 2}, 2),
    ("ovis", {"vocabulary": 12, "framed": False}, 1),
    ("ovis", {"vocabulary": 12, "framed": False, "stride": 3}, 3),
    ("pixel_shuffle", {"factor": 2}, 2),
    ("tokenpacker", {"levels": (0, -1)}, 2),
]


@pytest.mark.parametrize(("name", "options", "side"), BLOCKS, ids=[f"{n}-{s}" for n, _, s in BLOCKS])
@settings(max_examples=15, deadline=None)
@given(grid=GRIDS, place=st.tuples(st.integers(0, 6), st.integers(0, 6)))
@torch.no_grad()
def test_a_patch_moves_the_token_of_its_block_alone(
    name: str, options: dict[str, Any], side: int, grid: tuple[int, int], place: tuple[int, int]
) -> None:
    connector = made(name, options, grid)
    try:
        high, wide = connector.tokens(grid)
    except UnsupportedError:
        return
    row, column = place[0] % grid[0], place[1] % grid[1]
    expected = {  # the index map: token -> the patches of its block, those that there are
        token
        for token in range(high * wide)
        for r in range(token // wide * side, token // wide * side + side)
        for c in range(token % wide * side, token % wide * side + side)
        if (r, c) == (row, column)
    }
    seen, cell = features(grid, 1), row * grid[1] + column
    before = connector(seen)
    assert seen.hidden_states is not None
    for state in seen.hidden_states:  # the tokens are a view of one of them
        state[:, 1 + cell] += torch.randn(WIDTH)
    moved = (connector(seen) - before).abs().amax(-1)[0] > 1e-6
    assert set(moved.nonzero().flatten().tolist()) == expected
