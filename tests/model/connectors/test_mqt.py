"""The Matryoshka query transformer: what few queries give is the beginning of what all of them give."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.connectors.base import ConnectorContext
from argus.model.connectors.mqt import sine_cosine
from tests.model.connectors.composed import features

SOURCES = ["position", "feature+position"]


def mqt(**options: Any) -> Any:
    torch.manual_seed(0)
    return build("connector", "mqt", {"max_tokens": 9, "heads": 2, **options}, vision_width=16, text_width=12).eval()


@pytest.mark.parametrize("source", SOURCES)
def test_few_tokens_are_the_beginning_of_all(source: str) -> None:
    connector, seen = mqt(key_source=source), features()
    whole = connector(seen)
    assert whole.shape == (2, 9, 12)
    for count in range(1, 10):
        torch.testing.assert_close(connector(seen, ConnectorContext(budget=count)), whole[:, :count], rtol=0, atol=1e-6)


def test_only_queries_that_were_used_learn() -> None:
    connector = mqt()
    connector(features(), ConnectorContext(budget=4)).square().sum().backward()
    assert (connector.query.grad[:4] != 0).any(1).all()
    assert (connector.query.grad[4:] == 0).all()
    assert not connector.pos_embed.requires_grad


def test_keys_of_positions_do_not_see_the_picture() -> None:
    """Attention of every head is the same on two pictures in the published code, and differs as the paper describes it."""
    for source, same in zip(SOURCES, (True, False), strict=True):
        connector = mqt(key_source=source)
        _, weights = connector.attn(*connector.attended(features(), 9), average_attn_weights=False)  # (B, heads, M, N)
        assert torch.equal(weights[0], weights[1]) == same


@pytest.mark.parametrize("source", SOURCES)
def test_the_attention_is_the_formula(source: str) -> None:
    """Head by head: softmax(q k / sqrt(d)) v, then the output matrix and the projection."""
    connector, seen = mqt(key_source=source), features()
    table = connector.pos_embed.T.view(1, 16, 3, 3)
    place = F.interpolate(table, (4, 6), mode="bicubic", align_corners=False)[0].flatten(1).T
    q = connector.ln_q(connector.query + connector.pos_embed).expand(2, -1, -1)
    k = connector.ln_k(place).expand(2, -1, -1) if source == "position" else connector.ln_k(seen.tokens) + place
    weight, bias = connector.attn.in_proj_weight.chunk(3), connector.attn.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((q, k, connector.ln_v(seen.tokens)), weight, bias, strict=True))
    heads = []
    for head in (slice(0, 8), slice(8, 16)):
        attention = (q[..., head] @ k[..., head].transpose(1, 2) / math.sqrt(8)).softmax(-1)
        heads.append(attention @ v[..., head])
    expected = connector.attn.out_proj(torch.cat(heads, -1)) @ connector.proj.weight.T
    torch.testing.assert_close(connector(seen), expected, rtol=1e-5, atol=1e-5)


def test_the_position_table_is_the_formula() -> None:
    """Of cell (row 2, column 1) of a 3 x 3 table with 8 channels: sines and cosines of the column, then of the row."""
    angles = [place * 10000 ** (-d / 2) for place in (1, 2) for d in (0, 1)]
    column, row = angles[:2], angles[2:]
    expected = [*map(math.sin, column), *map(math.cos, column), *map(math.sin, row), *map(math.cos, row)]
    assert sine_cosine(3, 3, 8)[7].tolist() == pytest.approx(expected, abs=1e-6)


def test_any_number_of_queries() -> None:
    """Five queries take the first five cells of the 3 x 3 table; a grid as large as the table is not resized."""
    connector = mqt(max_tokens=5)
    assert torch.equal(connector.pos_embed, sine_cosine(3, 3, 16))
    assert torch.equal(connector.places((3, 3)), connector.pos_embed)
    assert connector(features()).shape == (2, 5, 12)
    assert (connector.tokens((4, 6)), connector.most_tokens) == ((1, 5), 5)
    with pytest.raises(UnsupportedError, match="heads"):
        mqt(heads=3)


def test_half_precision() -> None:
    connector, seen = mqt().bfloat16(), features()
    assert connector(replace(seen, tokens=seen.tokens.bfloat16())).dtype == torch.bfloat16


def test_sizes_are_the_published_ones() -> None:
    """256 queries of 1024 channels, 16 heads, Vicuna's 4096: queries, attention, three norms, one bare matrix."""
    with torch.device("meta"):
        connector = build("connector", "mqt", vision_width=1024, text_width=4096)
    assert connector.attn.num_heads == 16
    expected = 256 * 1024 + (4 * 1024**2 + 4 * 1024) + 3 * 2 * 1024 + 1024 * 4096
    assert sum(p.numel() for p in connector.parameters()) == expected == 8_660_992
