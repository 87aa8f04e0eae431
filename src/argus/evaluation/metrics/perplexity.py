"""Perplexity of the right answers: how surprised a model is by them, whatever it would have chosen.

    exp(- mean over questions of log p(answer | question))

The log-probability is the one that the inferencer gave the right option: with `likelihood: {normalise: mean}` that of a token of
the answer, its end included, so that the number is a perplexity per token in which every answer weighs the same; with `sum` it
is one per answer. Asked without pictures (`told`), it says what training on pictures did to a language model's skill with text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from argus.core.errors import UnsupportedError
from argus.core.sample import Sample
from argus.evaluation import statistics
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import NoOptions, Row, Score, WholeMetric
from argus.evaluation.statistics import Measurement


class Perplexity(WholeMetric):
    """Over all questions, and over those of each family."""

    Options = NoOptions
    unit, better = "perplexity", "lower"

    def applies(self, sample: Sample) -> bool:
        return sample.target in sample.options

    def score(self, sample: Sample, answer: Answer) -> Score:
        if len(answer.scores) != len(sample.options):
            raise UnsupportedError("perplexity needs log-probabilities.", hint="The inferencer `likelihood` gives them.")
        found = answer.scores[sample.options.index(sample.target or "")]
        return Score(None, "", notes={"log_probability": found})

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        groups: dict[str, list[Row]] = {"all": []}
        for row in rows:
            for group in dict.fromkeys(("all", *row.groups)):
                groups.setdefault(group, []).append(row)
        return {group: self._of(of) for group, of in groups.items()}

    def _of(self, rows: Sequence[Row]) -> Measurement:
        logs = statistics.mean([-row.notes["log_probability"] for row in rows], [row.cluster for row in rows], self.unit)
        return replace(logs, value=math.exp(logs.value), low=math.exp(logs.low), high=math.exp(logs.high))
