"""The prompt as the language model was given it, and shorter versions of it for a second branch.

Pictures are recognised as reductions do it (`argus.methods.encoded`): by what the vision tower has just made. So a branch
encodes nothing again, whatever the family, the number of pictures or the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.methods.encoded import Encoder, Encoding, Kind
from argus.methods.reduction.selectors import groups
from argus.model.anatomy.base import Anatomy, VisualTokens
from argus.model.token_map import TokenMap


@dataclass(frozen=True, slots=True)
class Prompt:
    """What entered the language model.

    Args:
        embeddings: (B, S, D) words and visual tokens.
        real: (B, S) bool, False at padding.
        positions: (3, B, S) of models with row and column positions, None for models that count.
        tokens: the T visual tokens.
        found: (encoding, crop in it) of each crop of `tokens`.
        map: the token map of models composed by Argus.
        place: (T,) rank of each visual token in its crop, -1 for those that left; None while all are there.
        patches: (crops, k) patches that visual tokens were made anew of, and `patch_grid`, rows and columns that these are of.
    """

    embeddings: Tensor
    real: Tensor
    positions: Tensor | None
    tokens: VisualTokens
    found: list[tuple[Encoding, int]]
    map: TokenMap | None = None
    place: Tensor | None = None
    patches: Tensor | None = None
    patch_grid: tuple[int, int] | None = None

    def scores(self, kind: Kind) -> Tensor:
        """(T,) attention in the vision encoder."""
        return torch.cat([e.crop_scores(kind, g) for e, g in self.found]).to(self.real.device)

    def fingerprints(self) -> Tensor:
        """(T,) int64, a number made from the pixels of each token's crop."""
        return torch.cat([e.fingerprint(g) for e, g in self.found]).to(self.real.device)[self.tokens.crop]

    def only(self, place: Tensor) -> Prompt:
        """The prompt with some of its visual tokens, left-padded to the longest item.

        A crop's tokens stand in the order of their places from where its first one stood; of a picture's line breaks only
        the one behind all of it stays.

        Args:
            place: (T,) rank in its crop of each token that stays, -1 of the others.
        """
        batch, length = self.real.shape
        tokens, device = self.tokens, self.real.device
        key = (torch.arange(length, device=device) * length).where(self.real, -1)  # (B, S) where a position goes, -1 out
        first = torch.full((len(tokens.crops),), length, device=device).scatter_reduce(0, tokens.crop, tokens.column, "amin")
        key[tokens.item, tokens.column] = (first[tokens.crop] * length + place).where(place >= 0, -1)
        if tokens.breaks is not None:
            picture = groups(tokens, "image")
            last = torch.zeros(int(picture.max()) + 1, dtype=torch.long, device=device)
            last = last.scatter_reduce(0, picture, tokens.column, "amax")[picture]
            behind = torch.zeros(batch, length + 1, dtype=torch.bool, device=device)
            behind[tokens.item, last + 1] = True
            item, column = tokens.breaks.unbind(1)
            key[item, column] = key[item, column].where(behind[item, column], -1)
        longest = int((key >= 0).sum(1).max())
        order = key.argsort(dim=1, stable=True)[:, length - longest :]  # (B, L) columns, those that are out in front
        rows = torch.arange(batch, device=device)[:, None]
        real = key[rows, order] >= 0
        return replace(
            self,
            embeddings=self.embeddings[rows, order],
            real=real,
            positions=None if self.positions is None else self.positions[:, rows, order],
            map=None if self.map is None else self.map.gather(order, real),
            place=place,
        )

    def made_of(self, anatomy: Anatomy, chosen: Callable[[Encoding], Tensor]) -> Prompt:
        """The prompt with visual tokens that the connector makes of some patches alone, in the places of its own.

        Args:
            chosen: encoding -> patches (G, k) of each of its crops, in the order in which the connector reads them.
        """
        count = {crop.grid[0] * crop.grid[1] for crop in self.tokens.crops}.pop()  # the tower's crops are of one size
        made: dict[int, tuple[Tensor, Tensor]] = {}
        for encoding, _ in self.found:
            if id(encoding) not in made:
                patches = chosen(encoding)
                made[id(encoding)] = patches, anatomy.of_patches(encoding.features, patches, count)
        patches, rows = (
            torch.cat([e.tiles(made[id(e)][which], g) for e, g in self.found]).to(self.real.device) for which in (0, 1)
        )  # (crops, k) and (crops, count, D)
        embeddings = self.embeddings.clone()
        embeddings[self.tokens.item, self.tokens.column] = rows[self.tokens.crop, self.tokens.cell].to(embeddings)
        return replace(self, embeddings=embeddings, patches=patches, patch_grid=self.found[0][0].features.grid)


class Prompts:
    """Listens to a model for prompts with pictures, until `remove`.

    Args:
        anatomy: the model's parts.
        kinds: attention in the vision encoder that will be read.
        fingerprinted: whether fingerprints of the pixels will be.
        patchwise: whether patches will be chosen in front of the connector.
    """

    def __init__(self, anatomy: Anatomy, kinds: Collection[Kind], fingerprinted: bool, patchwise: bool) -> None:
        self.anatomy = anatomy
        self.encoder = Encoder(anatomy)
        self.encoder.kinds, self.encoder.fingerprinted, self.encoder.patchwise = set(kinds), fingerprinted, patchwise
        self._seen: dict[str, Any] | None = None  # the root module's inputs, until its language model runs
        self._prompt: Prompt | None = None
        self.hooks = [
            anatomy.root.register_forward_pre_hook(self._root, with_kwargs=True),
            anatomy.language_model.register_forward_pre_hook(self._begin, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Stops listening."""
        for hook in self.hooks:
            hook.remove()
        self.encoder.remove()

    def take(self) -> Prompt | None:
        """The prompt of the last prefill; None where it showed no picture."""
        prompt, self._prompt = self._prompt, None
        return prompt

    def _root(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._seen = None
        cache = kwargs.get("past_key_values")
        past = int(cache.get_seq_length()) if cache is not None else 0
        if not past:
            self._prompt = None
        if any(kwargs.get(name) is not None and len(kwargs[name]) for name in self.anatomy.picture_inputs):
            ids = kwargs.get("input_ids", args[0] if args else None)
            if ids is None:
                raise UnsupportedError("visual tokens are found by input_ids, and the model was given only embeddings.")
            self._seen = {"input_ids": ids, "attention_mask": kwargs.get("attention_mask"), "past": past}

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen, self._seen = self._seen, None
        if seen is None:
            return
        embeddings, mask = kwargs["inputs_embeds"], self.anatomy.visual_mask(seen["input_ids"])
        rows = embeddings[mask]  # (M, D)
        if not len(rows):
            raise UnsupportedError("the pictures are no tokens of the prompt, so that none of them can be left out.")
        padding = seen["attention_mask"]
        if seen["past"] or (padding is not None and padding.ndim != 2):
            what = "pictures follow a filled cache" if seen["past"] else "the attention mask is not (batch, length)"
            raise UnsupportedError(
                f"a second branch needs the whole prompt at once, and {what}.",
                hint="Give the whole prompt in one call, with the processor's own mask.",
            )
        found = self.encoder.match(rows)
        tokens = self.anatomy.locate(mask, [e.pieces[g] for e, g in found])
        real = torch.ones_like(mask) if padding is None else padding.bool()
        positions = kwargs["position_ids"][-3:] if self.anatomy.mrope else None
        self._prompt = Prompt(embeddings, real, positions, tokens, found, getattr(self.anatomy.root, "token_map", None))
