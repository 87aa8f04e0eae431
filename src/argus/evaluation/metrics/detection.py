"""Detection in two stages (ChEF on VOC2012, arXiv 2311.02692): which classes are there, and where are they?

    class accuracy = right class turns / class turns
    mAP = hits / box turns that count            mAR = hits / gold boxes

A box turn counts only if its picture's turn for that class was right; it is a hit if the chosen box has an IoU of more than 0.5
with any gold box of the class. `detection` is the mAP, the paper's one number for VOC (chance 25 %); `detection[class]` and
`detection[mAR]` stand beside it. A class turn is right if it names the class. A box is the chosen option's, or the first one in
a written answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import Row, Score, WholeMetric
from argus.evaluation.metrics.iou import iou, read_box
from argus.evaluation.metrics.words import has_word
from argus.evaluation.statistics import Measurement, ratio


class DetectionOptions(Options):
    """Options of the metric."""

    threshold: float = Field(0.5, ge=0, lt=1, description="overlap that a hit exceeds")


class Detection(WholeMetric):
    """Hits of the boxes of rightly named classes."""

    Options = DetectionOptions
    options: DetectionOptions

    def applies(self, sample: Sample) -> bool:
        return "class" in sample.metadata

    def score(self, sample: Sample, answer: Answer) -> Score:
        """Metadata: `class`, and for box turns the class's `gold` boxes and the options' `boxes`."""
        known = sample.metadata
        notes = {"picture": known["picture"], "class": known["class"], "box": "gold" in known}
        if "gold" not in known:
            right = has_word(answer.text, known["class"])
            return Score(None, answer.text, notes={**notes, "right": float(right)})
        place = sample.options.index(answer.text) if answer.text in sample.options else None
        found = known["boxes"][place] if place is not None else read_box(answer.text)
        overlap = max((iou(tuple(gold), tuple(found)) for gold in known["gold"]), default=0.0) if found else 0.0
        return Score(None, f"IoU {overlap:.3f}", notes={**notes, "right": float(overlap > self.options.threshold)})

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        classes = [row for row in rows if not row.notes["box"]]
        boxes = [row for row in rows if row.notes["box"]]
        right = {(row.notes["picture"], row.notes["class"]) for row in classes if row.notes["right"]}
        counts = [float((row.notes["picture"], row.notes["class"]) in right) for row in boxes]
        hits = [count * row.notes["right"] for count, row in zip(counts, boxes, strict=True)]
        own, of_classes = [row.cluster for row in boxes], [row.cluster for row in classes]
        nothing = Measurement(float("nan"), float("nan"), float("nan"), 0, self.unit)
        return {
            "all": ratio(hits, counts, own) if boxes else nothing,
            "mAR": ratio(hits, [1.0] * len(hits), own) if boxes else nothing,
            "class": ratio([row.notes["right"] for row in classes], [1.0] * len(classes), of_classes) if classes else nothing,
        }
