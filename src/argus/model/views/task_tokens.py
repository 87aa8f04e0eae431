"""Task tokens behind a picture (OLA-VLM: Elevating Visual Perception in Multimodal LLMs with Auxiliary Embedding Distillation,
arXiv 2412.09585).

Another view cuts and orders the picture; behind it stand a few learned tokens per task. Objective `ola_vlm` teaches the language
model to gather there what experts know about the picture; afterwards they stay as they are.

    [system] [picture as the other view reads it] [gen] [depth] [seg] [text]

Depth and segmentation have N learned rows E (N, D), one per cell of the map that is to be predicted; they enter as the means of
consecutive groups of N / T rows, T (T, D). Generation is about the whole picture: its T rows enter as they are. The order, T = 8
and N = 576 (24 x 24) are those of the published code, as is the start from N(0, 1). That code knows a sequence's parts by
hard-coded lengths; here they have places of their own in the layout, and the token map says where they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from argus.core.registry import Options, build
from argus.model.views.base import TASK, Layout, Places, Task, Tiles, View

Name = Literal["gen", "depth", "seg"]


class TaskTokensOptions(Options):
    """Which tasks, and of what size."""

    view: str | dict[str, dict[str, Any]] = Field("square", description="what cuts and orders the picture: a view by name")
    order: tuple[Name, ...] = Field(("gen", "depth", "seg"), min_length=1, description="tasks in the order of their tokens")
    tokens: int = Field(8, ge=1, description="T, tokens per task")
    rows: int = Field(576, ge=1, description="N, learned rows of depth and segmentation: a square number that T divides")

    @model_validator(mode="after")
    def _fit(self) -> TaskTokensOptions:
        if len(set(self.order)) != len(self.order):
            raise ValueError(f"order names a task twice: {', '.join(self.order)}")
        if self.rows % self.tokens or math.isqrt(self.rows) ** 2 != self.rows:
            raise ValueError(f"rows ({self.rows}) must be a square number that tokens ({self.tokens}) divides")
        return self


class TaskTokens(View):
    """A view with learned tokens behind the picture; it knows every picture's positions, so it counts as tiled."""

    Options = TaskTokensOptions
    options: TaskTokensOptions
    tiled = True

    def __init__(self, options: TaskTokensOptions) -> None:
        super().__init__(options)
        given = options.view
        self.inner: View = build("view", *(next(iter(given.items())) if isinstance(given, dict) else (given, {})))
        self.learned, self.reads_rows = self.inner.learned, self.inner.reads_rows
        count = options.tokens
        self.tasks = tuple(Task(name, count, count if name == "gen" else options.rows) for name in options.order)

    def __call__(self, picture: Image.Image, size: int) -> Tiles:
        return self.inner(picture, size)

    def count(self, width: int, height: int, size: int) -> int:
        return self.inner.count(width, height, size)

    def layout(self, width: int, height: int, size: int, grid: tuple[int, int]) -> Layout:
        behind = TASK - np.arange(sum(task.tokens for task in self.tasks))
        return (*self.inner.layout(width, height, size, grid), Places(behind))

    def whole(self, width: int, height: int, size: int) -> int:
        return self.inner.whole(width, height, size)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        return self.inner.frame(width, height)

    def tags(self) -> tuple[str, ...]:
        return self.inner.tags()

    def texts(self) -> tuple[str, ...]:
        return self.inner.texts()


def spans(tasks: Sequence[Task]) -> dict[str, slice]:
    """Of each task the numbers of its tokens among a picture's task tokens."""
    ends = np.cumsum([task.tokens for task in tasks]).tolist()
    return {task.name: slice(end - task.tokens, end) for task, end in zip(tasks, ends, strict=True)}
