"""How pictures enter a language model: in its sequence, by cross-attention, or both.

A view says what a picture is made of; here it is said what of that stays in the sequence. For two tiles and a thumbnail of 4
tokens (NVLM's view, one token per tag for the example):

    decoder   <Image> <tile_1> v v v v <tile_2> v v v v <thumb> v v v v </Image>
    hybrid    <Image> <tile_1> <tile_2> <thumb> v v v v </Image>
    cross     <Image> <tile_1> <tile_2> <thumb> </Image>

Without placeholders a picture is known by its text: the ids that the view writes from its start to its last tag or placeholder
are its *block*. A model that is given pictures looks for their blocks, in order, and marks them in the token map: `image` on the
whole block, `tile` on tags. What stands behind a block is text about the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from argus.core.errors import ModelError, UnsupportedError
from argus.model.token_map import TokenMap
from argus.model.views.base import Arrangement, Places, Text, View

Fusion = Literal["decoder", "cross", "hybrid"]


@dataclass(frozen=True, slots=True)
class Crossed:
    """Tiles of pictures that stay out of the sequence.

    Args:
        tokens: (N, D) their visual tokens, picture by picture.
        tile: (N,) index of a token's tile within its picture.
        counts: N of each picture.
    """

    tokens: Tensor
    tile: Tensor
    counts: list[int]


def check_view(view: View, name: str, fusion: Fusion) -> None:
    """Refuse views whose pictures cross-attention could not find, or would have nothing of.

    Raises:
        UnsupportedError: the view cuts no tiles, or writes no text.
    """
    if fusion != "decoder" and not view.tiled:
        raise UnsupportedError(f"cross-attention reads tiles, and the view '{name}' cuts none.", hint="Use the view nvlm.")
    if fusion != "decoder" and view.tasks:
        raise UnsupportedError(
            f"cross-attention leaves tiles out of the sequence, and the task tokens of view '{name}' are read behind all of them."
        )
    if fusion == "cross" and not any(letter.isalnum() for text in view.texts() for letter in text):
        raise UnsupportedError(
            f"with fusion 'cross' what a view writes is a picture's place in the text, and the view '{name}' writes nothing that "
            "stands out.",
            hint="Use the view nvlm with tags or wrap, or fusion 'hybrid'.",
        )


def fused(picture: Arrangement, fusion: Fusion) -> Arrangement:
    """The picture with what stays of it in the sequence: everything, its text, or its text and the thumbnail.

    Raises:
        UnsupportedError: hybrid, and a picture of several tiles without the whole.
    """
    if fusion == "decoder":
        return picture
    if fusion == "hybrid" and picture.whole < 0:
        raise UnsupportedError(
            "fusion 'hybrid' has the thumbnail in the sequence, and this view shows none.", hint="Switch the view's thumbnail on."
        )
    kept = -1 if fusion == "cross" else picture.whole
    area = picture.grid[0] * picture.grid[1]
    spans: list[Text | Places] = []
    for span in picture.layout:
        if isinstance(span, Text):
            spans.append(span)
        elif len(source := span.source[(span.source >= 0) & (span.source // area == kept)]):
            spans.append(Places(source))
    return replace(picture, layout=tuple(spans))


def crossed_tiles(picture: Arrangement, fusion: Fusion) -> list[int]:
    """Tiles of a picture that stay out of the sequence."""
    return [t for t in range(picture.tiles) if fusion == "cross" or (fusion == "hybrid" and t != picture.whole)]


def block(picture: Arrangement, texts: Mapping[str, Sequence[int]], placeholder: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a fused picture up to its last tag or placeholder - up to its first text, where it has neither -, and their tiles.

    Raises:
        ModelError: a text that is not in the table.
    """
    marked = [i for i, span in enumerate(picture.layout) if isinstance(span, Places) or span.tile >= 0]
    ids: list[int] = []
    tiles: list[int] = []
    for span in picture.layout[: max(marked, default=0) + 1]:
        if isinstance(span, Text) and span.text not in texts:
            hint = "Compose the model anew with this view, if it is one that announces tiles (nvlm)."
            raise ModelError(f"the model's config has no ids for '{span.text}'", hint=hint)
        more = list(texts[span.text]) if isinstance(span, Text) else [placeholder] * len(span.source)
        ids += more
        tiles += [span.tile if isinstance(span, Text) else picture.whole] * len(more)
    return np.array(ids), np.array(tiles)


def find(ids: Tensor, blocks: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Where pictures are: (B, S) picture of each position, counted from 0 in each sequence, and its tile; -1 for none.

    Args:
        ids: (B, S).
        blocks: of the pictures, in reading order over the batch.

    Raises:
        ModelError: a picture whose block is not there.
    """
    rows = ids.cpu().numpy()
    image, tile = np.full((2, *rows.shape), -1)
    left = list(blocks)
    for row, images, tiles in zip(rows, image, tile, strict=True):
        at, number = 0, 0
        while left and (start := _first(row, left[0][0], at)) is not None:
            _, of = left.pop(0)
            at = start + len(of)
            images[start:at], tiles[start:at] = number, of
            number += 1
    if left:
        raise ModelError(
            f"{len(left)} of {len(blocks)} pictures have no place in the text: it does not hold what their view writes",
            hint="Prepare text and pictures in one call of the processor of this model, and keep a picture's tags in one pass.",
        )
    return torch.from_numpy(image).to(ids.device), torch.from_numpy(tile).to(ids.device)


def _first(row: np.ndarray, wanted: np.ndarray, start: int) -> int | None:
    """Where `wanted` stands first in a row, from `start` on."""
    starts = start + np.flatnonzero(row[start : max(len(row) - len(wanted) + 1, start)] == wanted[0])
    found = (row[starts[:, None] + np.arange(len(wanted))] == wanted).all(1)
    return int(starts[found.argmax()]) if found.any() else None


def mark(known: TokenMap, image: Tensor, tile: Tensor) -> TokenMap:
    """The map with the blocks of pictures marked; placeholders know their tile already."""
    kept = known.placeholders | (image < 0)
    return replace(known, image=torch.where(kept, known.image, image), tile=torch.where(kept, known.tile, tile))
