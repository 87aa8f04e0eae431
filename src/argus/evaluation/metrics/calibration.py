"""Calibration (ChEF, arXiv 2311.02692): does a model know how often it is right?

    p_i = max of softmax over the options of their scores        ECE = sum_b n_b / n |mean p_b - accuracy_b|

over `bins` bins of equal count, confidences sorted. `ece` is the error, less is better; `ece[score]` is the paper's
100 (1 - ECE), the mean of two data sets in its table. ECE is computed per family and branch too, from their answers alone.

`fit: 0.5` fits a temperature on the answers about half of the pictures and measures on the others alone: `ece` without it,
`ece[fitted]` with it, `ece[temperature]`. Which half a picture is in depends on its name, not on the model. The interval of ECE
takes the bins as given; of finite samples ECE is biased upwards.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from zlib import crc32

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.desiderata import calibration_gaps, confidences, temperature
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import Row, Score, WholeMetric
from argus.evaluation.statistics import Measurement, mean


class ECEOptions(Options):
    """Options of the metric."""

    bins: int = Field(10, ge=1, le=1000, description="bins of equal count")
    fit: float = Field(0.0, ge=0, lt=1, description="share of the pictures that a temperature is fitted on; none at 0")


class ECE(WholeMetric):
    """Expected calibration error of the chosen options."""

    Options = ECEOptions
    options: ECEOptions
    better = "lower"

    def applies(self, sample: Sample) -> bool:
        return len(sample.options) > 1 and sample.target in sample.options

    def score(self, sample: Sample, answer: Answer) -> Score:
        """Notes of an answer with a score per option; one without has no confidence."""
        if not answer.scores:
            return Score(None, "")
        place = answer.scores.index(max(answer.scores))
        notes = {"scores": list(answer.scores), "right": sample.options.index(sample.target or "")}
        return Score(None, sample.options[place], notes=notes)

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        fitting = [row for row in rows if crc32(row.cluster.encode()) / 2**32 < self.options.fit]
        shown = [row for row in rows if crc32(row.cluster.encode()) / 2**32 >= self.options.fit]
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in shown:
            for group in row.groups:
                groups[group].append(row)
        found = {group: self.error(of, 1.0) for group, of in groups.items()}
        whole = self.error(shown, 1.0)
        value, low, high = (100 * (1 - end) for end in (whole.value, whole.high, whole.low))
        found |= {"all": whole, "score": Measurement(value, low, high, whole.n, "points")}
        if fitting:
            t = temperature([row.notes["scores"] for row in fitting], [row.notes["right"] for row in fitting])
            found |= {"fitted": self.error(shown, t), "temperature": Measurement(t, math.nan, math.nan, len(fitting), "")}
        return found

    def error(self, rows: Sequence[Row], t: float) -> Measurement:
        """ECE of some answers at a temperature."""
        if not rows:
            return mean([], [])
        scores = [row.notes["scores"] for row in rows]
        right = [float(s.index(max(s)) == row.notes["right"]) for s, row in zip(scores, rows, strict=True)]
        return mean(calibration_gaps(confidences(scores, t), right, self.options.bins), [row.cluster for row in rows])
