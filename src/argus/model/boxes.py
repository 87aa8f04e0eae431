"""Where boxes of interest come from, and which of them are kept, for connectors that have a token per box.

MG-LLaVA (arXiv 2406.17770) takes them from an open-vocabulary detector that ran before. A list of them per picture can be given
to the processor, its `detector` can be any function of a picture, and where samples are read (training, evaluation) they are of

    file        JSON: a list of {id, boxes: [[x1, y1, x2, y2], ...], scores, labels}, in pixels, joined on the sample's id
    scene       the world's truth about a picture: everything in it
    question    the world's truth about a question: what must be looked at
    random      as a control: 1 to `most` boxes of random place and size, the same for a picture every time

Of a detector's boxes those stay that no better one of the same label covers by more than `nms`; where more than `total` are left,
the best `per_label` of each label. Constants are those of the published code. Boxes are relative, (x1, y1, x2, y2) in 0..1.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from argus.core.errors import DataError
from argus.core.registry import Options
from argus.core.sample import Sample

Box = tuple[float, float, float, float]


class BoxOptions(Options):
    """Where the boxes of a sample come from."""

    source: Literal["file", "scene", "question", "random"] = Field(description="a file, the world's truth, or chance")
    file: str | None = Field(None, description="the file, for `source: file`")
    noise: float = Field(0.0, ge=0, le=1, description="deviation of the sides of true boxes, as a share of the box's size")
    most: int = Field(6, ge=1, le=1000, description="most boxes of a picture, for `source: random`")
    nms: float = Field(0.2, ge=0, le=1, description="share (intersection over union) above which boxes of one label are one")
    per_label: int = Field(20, ge=1, description="boxes of a label that stay where there are too many")
    total: int = Field(100, ge=1, description="how many boxes are too many")

    @model_validator(mode="after")
    def _file(self) -> BoxOptions:
        if (self.source == "file") != (self.file is not None):
            raise ValueError("a file belongs to `source: file`, and to nothing else")
        return self


class BoxSource:
    """Sample -> boxes of each of its pictures."""

    def __init__(self, options: BoxOptions) -> None:
        self.options = options

    @property
    def depends_on_question(self) -> bool:
        """Whether two questions about a picture may get other boxes."""
        return self.options.source in ("question", "file")

    def __call__(self, sample: Sample, sizes: Sequence[tuple[int, int]]) -> list[list[Box]]:
        """Boxes of each picture; the sources know the first picture of a sample alone, so others have none.

        Args:
            sizes: width and height of the pictures.

        Raises:
            DataError: the sample does not say, or is not in the file.
        """
        if not sizes:
            return []
        o, rng = self.options, np.random.default_rng(zlib.crc32(str(sample.metadata.get("picture", sample.id)).encode()))
        if o.source == "random":
            corners = rng.random((rng.integers(1, o.most + 1), 2, 2))
            found = np.concatenate([corners.min(1), corners.max(1)], 1)
        elif o.source == "file":
            found = self._stored(sample.id) / np.array([*sizes[0], *sizes[0]])
        else:
            key = "scene_boxes" if o.source == "scene" else "boxes"
            if key not in sample.metadata:
                raise DataError(f"this sample has no '{key}', so `boxes: {{source: {o.source}}}` finds none", where=sample.id)
            found = np.array(sample.metadata[key], dtype=float).reshape(-1, 4)
            found = found + o.noise * rng.standard_normal(found.shape) * np.tile(found[:, 2:] - found[:, :2], 2)
            found = np.concatenate([np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])], 1)
        boxes: Any = [tuple(row) for row in found.tolist()]
        return [boxes, *([] for _ in sizes[1:])]

    @cached_property
    def _table(self) -> dict[str, dict[str, Any]]:
        path = Path(str(self.options.file))
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            return {str(row["id"]): row for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"no list of {{id, boxes, scores, labels}} ({type(error).__name__}: {error})", where=str(path)
            ) from None

    def _stored(self, name: str) -> np.ndarray:
        """(n, 4) boxes of a sample in pixels, those that stay."""
        if name not in self._table:
            raise DataError(f"there are no boxes for '{name}'", where=str(self.options.file))
        row = self._table[name]
        boxes = torch.tensor(row["boxes"], dtype=torch.float64).view(-1, 4)
        scores = torch.tensor(row.get("scores") or [1.0] * len(boxes))
        labels = list(row.get("labels") or range(len(boxes)))
        o = self.options
        return boxes[select(boxes, scores, labels, o.nms, o.per_label, o.total)].numpy()


def select(boxes: Tensor, scores: Tensor, labels: Sequence[Any], nms: float, per_label: int, total: int) -> Tensor:
    """Indices of the boxes (n, 4) that stay, best first."""
    shared = overlap(boxes, boxes)  # (n, n)
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if not any(labels[index] == labels[other] and shared[index, other] > nms for other in kept):
            kept.append(index)
    if len(kept) > total:
        seen: Counter[Any] = Counter()
        for index in kept.copy():
            seen[labels[index]] += 1
            if seen[labels[index]] > per_label:
                kept.remove(index)
    return torch.tensor(kept, dtype=torch.long)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (n, m) of boxes (n, 4) and (m, 4); 0 where both are empty."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).clamp(min=0).prod(-1) for x in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both).clamp(min=1e-12)


def in_frame(boxes: Sequence[Box], frame: Box) -> list[Box]:
    """Boxes of a picture, relative to the part of it that a tile shows: shifted, scaled and cut to 0..1.

    Those that lie outside are dropped; where none is left, one empty box at the corner stands for the picture, as published.
    """
    x, y, width, height = frame[0], frame[1], frame[2] - frame[0], frame[3] - frame[1]
    moved = [((a - x) / width, (b - y) / height, (c - x) / width, (d - y) / height) for a, b, c, d in boxes]
    cut: Any = [tuple(min(1.0, max(0.0, side)) for side in box) for box in moved if _shown(box)]
    return cut or [(0.0, 0.0, 0.0, 0.0)]


def _shown(box: Box) -> bool:
    return box[0] < 1 and box[1] < 1 and box[2] > 0 and box[3] > 0


def filled(boxes: Sequence[Sequence[Box]]) -> Tensor:
    """Lists of boxes as one tensor (P, K, 4), shorter ones filled up with rows of -1."""
    table = torch.full((len(boxes), max(map(len, boxes), default=0), 4), -1.0)
    for row, some in zip(table, boxes, strict=True):
        row[: len(some)] = torch.tensor(some, dtype=torch.float32).view(-1, 4)
    return table
