"""MME's score of a task (arXiv 2306.13394): questions of yes or no in pairs, one of each answer per picture.

    score = 100 (acc + acc+)        acc: share of questions right; acc+: share of pictures with all questions right

A task is a question family: read `mme_pairs[existence]`, which goes to 200. Chance is 50 + 25. The published sums over 10 tasks
of perception and 4 of cognition are so many times `mme_pairs[mean perception]` and `mme_pairs[mean cognition]`. An answer is
read from its first four characters, lower-cased: yes if they hold "yes", else no if they hold "no", else neither and so wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score
from argus.evaluation.metrics.normalise import text_1
from argus.evaluation.statistics import Measurement, cluster_numbers, mean, standard_error, student


class MMEPairs(AnswerMetric):
    """100 (acc + acc+)."""

    Options = NoOptions
    unit = "points"

    def applies(self, sample: Sample) -> bool:
        """Questions of yes or no."""
        return text_1(sample.target or "") in ("yes", "no")

    def score(self, sample: Sample, answer: Answer) -> Score:
        start = answer.text.lower()[:4]
        extracted = "yes" if "yes" in start else "no" if "no" in start else ""
        return Score(float(extracted == text_1(sample.target or "")), extracted)

    def measure(self, values: Sequence[float], clusters: Sequence[str]) -> Measurement:
        if not len(values):
            return mean(values, clusters, self.unit)
        picture = cluster_numbers(clusters)
        asked = np.bincount(picture)  # (pictures,)
        right = np.bincount(picture, weights=values)
        whole = (right == asked).astype(float)
        acc, plus = right.sum() / asked.sum(), whole.mean()
        score = 100 * float(acc + plus)
        # To first order the score errs as the mean over pictures of both parts' residuals does.
        residual = 100 * ((right - acc * asked) / asked.mean() + whole - plus)
        half = student(len(asked) - 1) * standard_error(residual, np.arange(len(asked)))
        return Measurement(score, score - half, score + half, len(values), self.unit)

    def over_families(self, values: Sequence[float], families: Sequence[str], clusters: Sequence[str]) -> Measurement:
        of: dict[str, list[int]] = {}
        for place, family in enumerate(families):
            of.setdefault(family, []).append(place)
        tasks = [self.measure([values[i] for i in places], [clusters[i] for i in places]) for places in of.values()]
        score = sum(task.value for task in tasks) / len(tasks)
        # Tasks have pictures of their own, so that they err apart.
        half = math.sqrt(sum((task.high - task.value) ** 2 for task in tasks)) / len(tasks)
        return Measurement(score, score - half, score + half, len(values), self.unit)
