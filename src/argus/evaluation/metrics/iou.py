"""Boxes: the share of answers whose box overlaps the target's by at least `threshold` (PASCAL VOC: 0.5).

    IoU(A, B) = |A and B| / |A or B|

A box is written as four integers 0..99 of a 100 x 100 grid, `[x1, y1, x2, y2]`, and covers the cells from x1 through
x2 and y1 through y2; or as four relative numbers 0..1. Anything else is no box and scores 0.
"""

from __future__ import annotations

import re

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, Score

Box = tuple[float, float, float, float]
_NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
_BOX = re.compile(r"[\[(]" + ",".join([_NUMBER] * 4) + r"[\])]")


class IoUOptions(Options):
    """Options of the metric."""

    threshold: float = Field(0.5, gt=0, le=1, description="least overlap that counts")


class IoU(AnswerMetric):
    """Overlap of the first box in the answer with the target."""

    Options = IoUOptions
    options: IoUOptions

    def applies(self, sample: Sample) -> bool:
        return not sample.options and sample.target is not None and read_box(sample.target) is not None

    def score(self, sample: Sample, answer: Answer) -> Score:
        target, found = read_box(sample.target or ""), read_box(answer.text)
        overlap = iou(target, found) if target and found else 0.0
        return Score(float(overlap >= self.options.threshold), "no box" if found is None else f"IoU {overlap:.3f}")


def read_box(text: str) -> Box | None:
    """The first box in a text, in relative coordinates; None when there is none.

    >>> read_box("at [10, 20, 29, 49].")
    (0.1, 0.2, 0.3, 0.5)
    """
    match = _BOX.search(text)
    if match is None:
        return None
    x1, y1, x2, y2 = (float(v) for v in match.groups())
    if "." not in match.group(0):
        x1, y1, x2, y2 = x1 / 100, y1 / 100, (x2 + 1) / 100, (y2 + 1) / 100
    return (x1, y1, x2, y2) if x1 < x2 <= 1 and y1 < y2 <= 1 else None


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); rounded, or half of a box would be a little less than half."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return round(width * height / (area - width * height), 9)
