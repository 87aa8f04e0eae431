"""What the vision encoder has just seen: crops, their attention and pixels, and which visual tokens they became.

Pictures are encoded in one place and enter the language model in another; `generate` even encodes before it expands
beams and splits chunks. So crops are recognised by content: the visual tokens in the language model's input are, bit
for bit, the connector's output. A picture that was not encoded under the attachment is refused, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.methods.attention_rows import AttentionCall, attention_rows, mean_attention, single_head, watch, watch_block
from argus.model.anatomy.base import Anatomy, Piece
from argus.model.encoders.vit import AttentionBlock

Kind = Literal["cls", "received", "cls_single", "received_single"]  # single: one softmax over the products of all heads
PROBE = 16  # leading dimensions of a token's features that are compared


@dataclass(slots=True)
class Encoding:
    """One call of the vision tower: M visual tokens of G crops.

    Args:
        pieces: G crops.
        tokens: (M, PROBE) leading dimensions of the visual tokens, in placeholder order.
        scores: kind -> (T,) attention per visual token (leading tokens of a crop left out).
        fingerprints: (G,) int64 made from each crop's pixels, where they are wanted.
        features, patches: what the tower gave, and kind -> (G, N) attention per patch; instead of `scores`, for techniques that
            choose patches in front of the connector.
    """

    pieces: list[Piece]
    tokens: Tensor | None = None
    scores: dict[Kind, Tensor] = field(default_factory=dict)
    fingerprints: Tensor | None = None
    features: Any = None
    patches: dict[Kind, Tensor] = field(default_factory=dict)

    def crop_scores(self, kind: Kind, crop: int) -> Tensor:
        """(N,) scores of one piece."""
        if kind not in self.scores:
            raise _too_early()
        return self.pieces[crop].chosen(self.scores[kind].split([p.patches for p in self.pieces])[crop])

    def fingerprint(self, crop: int) -> Tensor:
        """(shown,) int64 of those crops of one piece that are in the prompt."""
        if self.fingerprints is None:
            raise _too_early()
        return self.tiles(self.fingerprints, crop)

    def tiles(self, values: Tensor, crop: int) -> Tensor:
        """(G, ...) values of all crops -> (shown, ...) of those crops of one piece that are in the prompt."""
        return values.split([p.tiles for p in self.pieces])[crop][self.pieces[crop].shown]


def _too_early() -> UnsupportedError:
    return UnsupportedError(
        "this prompt has pictures that were encoded before the technique was attached.",
        hint="Pass pixel_values, or encode the pictures while it is attached.",
    )


class Encoder:
    """Listens to a model's vision tower.

    Attributes:
        kinds: which attention to read; techniques add to it.
        fingerprinted: whether to make fingerprints of pixels.
        patchwise: whether to keep the tower's features and attention per patch, instead of attention per visual token.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.kinds: set[Kind] = set()
        self.fingerprinted = self.patchwise = False
        self.encodings: list[Encoding] = []
        self.used = False  # a new picture replaces those that a prompt has used
        self._inputs: dict[str, Any] = {}  # of the call that is running
        self._calls: dict[Kind, list[Tensor]] = {}
        self._watch: Any = None
        tower = anatomy.vision_tower
        self.hooks = [
            tower.register_forward_pre_hook(self._before, with_kwargs=True),
            tower.register_forward_hook(self._after, with_kwargs=True, always_call=True),
            anatomy.on_features(self._features),
        ]

    def remove(self) -> None:
        """Stops listening."""
        for hook in self.hooks:
            hook.remove()

    def match(self, rows: Tensor) -> list[tuple[Encoding, int]]:
        """The crops whose tokens are `rows` (M, D), in order: (encoding, index of the crop in it)."""
        rows = rows.detach()[:, :PROBE]
        known = [(e, g, start) for e in self.encodings if e.tokens is not None for g, start in enumerate(_starts(e))]
        if not known:
            raise _too_early()
        self.used = True
        heads = torch.stack([e.tokens[start] for e, _, start in known]).to(rows)  # type: ignore[index]  # (G, PROBE)
        sizes = [e.pieces[g].size for e, g, _ in known]
        if sum(sizes) == len(rows):  # the common case: all pictures, once each, in the order of encoding
            starts = torch.tensor([0, *sizes[:-1]], device=rows.device).cumsum(0)
            if torch.equal(rows[starts], heads):
                return [(e, g) for e, g, _ in known]
        same = [(rows == head).all(-1) for head in heads]
        table = torch.stack(same, 1).cpu()  # (M, G)
        found, place = [], 0
        while place < len(table):
            candidates = [k for k in table[place].nonzero().flatten().tolist() if place + sizes[k] <= len(table)]
            if not candidates:
                raise UnsupportedError(
                    "a picture in this prompt is not one that was encoded last, or only a part of it is in this chunk.",
                    hint="Encode and prefill pictures together; keep each picture in one prefill chunk.",
                )
            found.append(known[candidates[0]][:2])
            place += sizes[candidates[0]]
        return found

    # -- hooks

    def _before(self, tower: Any, args: Any, kwargs: Any) -> Any:
        self._inputs = self.anatomy.tower_inputs(args, kwargs)
        if self.used:
            self.encodings, self.used = [], False
        offset = max((p.picture + 1 for e in self.encodings for p in e.pieces), default=0)
        pieces = [replace(p, picture=p.picture + offset) for p in self.anatomy.pieces(self._inputs)]
        self.encodings.append(Encoding(pieces))
        options = self.anatomy.tower_options(self.kinds)
        self._calls = {} if options else {kind: [] for kind in self.kinds}
        if self._calls:
            attention = self.anatomy.encoder_attention
            if isinstance(attention, AttentionBlock):
                self._watch = watch_block(attention, self._listen)
            else:
                self._watch = watch(attention, self._listen)
        return (args, {**kwargs, **options}) if options else None

    @torch.no_grad()
    def _listen(self, call: AttentionCall) -> None:
        patches = self.anatomy.patches_per_call(self._inputs, call.key.shape[2])
        first = torch.zeros(len(call.query), 1, dtype=torch.long, device=call.query.device)
        weights = torch.zeros(call.query.shape[0], call.query.shape[2], device=call.query.device)
        weights[:, -patches:] = 1
        for kind, scores in self._calls.items():
            heads = single_head(call) if kind.endswith("single") else call
            rows = attention_rows(heads, first)[:, :, 0] if kind.startswith("cls") else mean_attention(heads, weights)
            scores.append(rows.mean(1)[:, -patches:])  # (G, N)

    def _after(self, tower: Any, args: Any, kwargs: Any, output: Any) -> None:
        if self._watch is not None:
            self._watch.remove()
            self._watch = None
        encoding, inputs, self._inputs = self.encodings[-1], self._inputs, {}
        if output is None:  # the tower failed: forget the call
            self.encodings.pop()
            return
        given: dict[Kind, list[Tensor]] = {kind: [scores] for kind, scores in self.anatomy.output_scores(output).items()}
        for kind, calls in (self._calls | given).items():
            if self.patchwise:
                encoding.patches[kind] = torch.cat(calls)
            else:
                encoding.scores[kind] = self.anatomy.token_scores(calls, inputs)
        encoding.features = output if self.patchwise else None
        if self.fingerprinted:
            encoding.fingerprints = torch.stack([fingerprint(p) for p in self.anatomy.vision_pixels(inputs)])
        self._calls = {}

    def _features(self, tokens: Tensor, pieces: list[Piece] | None) -> None:
        encoding = self.encodings[-1]
        encoding.tokens = tokens.detach()[:, :PROBE].clone()
        if pieces is not None:
            first = encoding.pieces[0].picture
            encoding.pieces = [replace(p, picture=p.picture + first) for p in pieces]


def uniform(fingerprints: Tensor, cells: Tensor, seed: int) -> Tensor:
    """Uniform in [0, 1), (T,): a pure function of (seed, pixels of the crop, cell), in every batch and on every device."""
    seeded = mix(fingerprints ^ mix(torch.full_like(cells, seed)))
    return (mix(seeded + cells) >> 11 & (1 << 52) - 1).double() / (1 << 52)


def mix(x: Tensor) -> Tensor:
    """Scrambles int64 values one to one: the finaliser of SplitMix64 (Steele et al., 2014), with logical shifts."""
    x = (x ^ _shift(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ _shift(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ _shift(x, 31)


def fingerprint(pixels: Tensor) -> Tensor:
    """One int64 from the bits of a tensor; sums of integers are the same in any order, so on any device."""
    bits = pixels.detach().contiguous().flatten().view(torch.int16).long()
    return (bits * mix(torch.arange(1, len(bits) + 1, device=bits.device))).sum()


def _shift(x: Tensor, by: int) -> Tensor:
    return (x >> by) & ((1 << (64 - by)) - 1)


def _starts(encoding: Encoding) -> list[int]:
    """Where each crop's tokens start among those of its encoding."""
    starts, place = [], 0
    for piece in encoding.pieces:
        starts.append(place)
        place += piece.size
    return starts
