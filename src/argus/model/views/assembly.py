"""Tiles' visual tokens and learned vectors in the order in which the language model reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from argus.core.errors import ModelError
from argus.model.views.base import LEARNED, OBJECT, TASK, Arrangement, View, places


class Assembly(nn.Module):
    """The learned vectors of a view, and the gathering of pictures.

    The vectors start as normal as LLaVA-NeXT's, with deviation 1 / sqrt(width); those of tasks with deviation 1, as OLA-VLM's.

    Args:
        view: says which vectors there are.
        width: D of the language model.
    """

    def __init__(self, view: View, width: int) -> None:
        super().__init__()
        self.learned = view.learned
        for source in view.learned:
            self.register_parameter(LEARNED[source], nn.Parameter(torch.empty(width)))
        self.tasks = view.tasks
        for task in view.tasks:
            self.register_parameter(f"task_{task.name}", nn.Parameter(torch.empty(task.rows, width)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the learned vectors anew."""
        for vector in self.parameters():
            nn.init.normal_(vector, std=1.0 if vector.ndim > 1 else len(vector) ** -0.5)

    def task_rows(self, name: str) -> Tensor:
        """The learned vectors (rows, D) of a task."""
        return getattr(self, f"task_{name}")

    def forward(self, features: Tensor, pictures: Sequence[Arrangement], objects: Tensor | None = None) -> list[Tensor]:
        """Visual positions (n, D) of each picture.

        Args:
            features: (T, M, D) visual tokens of all tiles.
            pictures: in the order of the tiles.
            objects: (O, D) tokens of the boxes of all pictures, where there are any.

        Raises:
            ModelError: other tiles than the pictures have.
        """
        tiles, area, _ = features.shape
        if sum(p.tiles for p in pictures) != tiles:
            raise ModelError(
                f"{len(pictures)} pictures of these sizes have {sum(p.tiles for p in pictures)} tiles, but {tiles} were given",
                hint="Prepare text and pictures in one call of the processor of this model.",
            )
        vectors = [getattr(self, LEARNED[source])[None].to(features) for source in self.learned]
        tasks = [self.task_rows(t.name).unflatten(0, (t.tokens, -1)).mean(1).to(features) for t in self.tasks]
        boxed = [] if objects is None else [objects.to(features)]
        bank = torch.cat([features.flatten(0, 1), *vectors, *tasks, *boxed])  # (T M + learned + tasks + O, D)
        first = tiles * area + len(vectors)
        index, start, seen = [], 0, first + sum(t.tokens for t in self.tasks)
        for picture in pictures:
            source = places(picture.layout)
            moved = source + start * area
            for slot, learned in enumerate(self.learned):
                moved[source == learned] = tiles * area + slot
            learned_for = source <= TASK
            moved[learned_for] = first + TASK - source[learned_for]
            here = source == OBJECT
            moved[here] = seen + np.arange(here.sum())
            index.append(moved)
            start, seen = start + picture.tiles, seen + int(here.sum())
        rows = bank[torch.from_numpy(np.concatenate(index)).to(bank.device)]
        return list(rows.split([len(i) for i in index]))
