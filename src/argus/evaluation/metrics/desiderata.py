"""Desiderata of ChEF (arXiv 2311.02692) that compare the ways of the scenario `ways`.

    rrm     robustness         100 (acc_way - chance) / (acc_clean - chance)          rrm[noise_3]; `rrm` is the ways' mean
    riam    in-context gain    50 + 50 (mean acc_n - acc_0) / (acc_0 - chance)        riam[shots_1]; `riam[plain]` without the map
    mr      following          100 * share of items whose chosen place stays           mr[roman]; beside it `mr[accuracy]`
    spread  stability          standard deviation of the accuracies of the ways       spread[least], spread[most], spread[mean]

RIAM with its affine map is the official code's; the paper's equation may leave it out. acc is the share of right answers by
the metric `of`. Chance is that of the options, or as given: the paper's are 35.8 % (ScienceQA), 27.57 % (MMBench; 27.67 % in
its first release) and 2.55 % (MMBench, circular). A model that is within `margin` of chance has no skill that a change could
leave, so `rrm` and `riam` are not measured there; accuracies are, by `accuracy[way]`. `rrm[RR]` is 100 acc_way / acc_clean,
without chance. A model that always says the first option has mr 100: read it with `mr[accuracy]`, the accuracy under renaming.
An answer that is none of the options has no place, and never stays.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
from pydantic import Field

from argus.core.registry import Options, build
from argus.core.sample import Sample
from argus.evaluation.desiderata import LEAST
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, Row, Score, WholeMetric
from argus.evaluation.metrics.normalise import text_1
from argus.evaluation.options import Named, named
from argus.evaluation.statistics import Measurement, cluster_numbers, mean, resampled

Number = Callable[[np.ndarray], np.ndarray]  # (draws, ways) accuracies -> (draws,)


class WaysMetricOptions(Options):
    """Options of what compares ways."""

    of: Named = Field("accuracy", description="metric that says whether an answer is right")


class WaysMetric(WholeMetric):
    """Accuracies per way, and numbers made of them."""

    Options: ClassVar[type[WaysMetricOptions]] = WaysMetricOptions
    options: WaysMetricOptions
    unit = "points"

    def __init__(self, options: WaysMetricOptions) -> None:
        super().__init__(options)
        self.of: AnswerMetric = build("metric", *named(options.of))

    def applies(self, sample: Sample) -> bool:
        return "way" in sample.metadata and self.of.applies(sample)

    def score(self, sample: Sample, answer: Answer) -> Score:
        found = self.of.score(sample, answer)
        said = text_1(answer.text)
        notes = {
            "way": sample.metadata["way"],
            "asked": sample.metadata["asked"],
            "right": found.value or 0.0,
            "place": next((place for place, option in enumerate(sample.options) if text_1(option) == said), None),
            "chance": 1 / len(sample.options) if sample.options else 0.0,
        }
        return Score(None, found.extracted, notes=notes)

    def made(self, rows: Sequence[Row], ways: Sequence[str], numbers: dict[str, Number]) -> dict[str, Measurement]:
        """Numbers made of the accuracies of the ways, in their order."""
        place = {way: k for k, way in enumerate(ways)}
        cluster = cluster_numbers([row.cluster for row in rows])
        right, asked = np.zeros((cluster.max() + 1, len(ways))), np.zeros((cluster.max() + 1, len(ways)))
        at = cluster, np.array([place[row.notes["way"]] for row in rows])
        np.add.at(right, at, [row.notes["right"] for row in rows])
        np.add.at(asked, at, 1)
        return {name: resampled(right, asked, number, self.unit) for name, number in numbers.items()}


class AgainstBaseOptions(WaysMetricOptions):
    """Options of what is measured against one of the ways."""

    base: str = Field(min_length=1, description="the way that the others are held against")
    chance: float | None = Field(None, ge=0, lt=1, description="accuracy of a guess; that of the options when not given")
    margin: float = Field(LEAST, ge=0, lt=1, description="smallest skill above chance that others are measured against")


class AgainstBase(WaysMetric):
    """A change of accuracy, relative to the skill above chance."""

    options: AgainstBaseOptions

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        seen = {row.notes["way"] for row in rows}
        of_base = [row for row in rows if row.notes["way"] == self.options.base]
        others = sorted(seen - {self.options.base})
        if not of_base or not others:
            return {"all": mean([], [], self.unit)}
        given = self.options.chance
        chance = float(np.mean([row.notes["chance"] for row in of_base])) if given is None else given
        if abs(np.mean([row.notes["right"] for row in of_base]) - chance) < self.options.margin:
            return {name: Measurement(math.nan, math.nan, math.nan, 0, self.unit) for name in ("all", *others)}
        return self.made(rows, [self.options.base, *others], self.numbers(others, chance))

    @abstractmethod
    def numbers(self, others: Sequence[str], chance: float) -> dict[str, Number]:
        """Group -> its number of the accuracies of base and others."""


class RobustnessOptions(AgainstBaseOptions):
    """Options of the metric."""

    base: str = Field("clean", min_length=1, description="the way without corruption")


class Robustness(AgainstBase):
    """RRM: what of the skill corruptions leave."""

    Options = RobustnessOptions

    def numbers(self, others: Sequence[str], chance: float) -> dict[str, Number]:
        def left(acc: np.ndarray) -> np.ndarray:
            return 100 * (acc - chance) / (acc[:, :1] - chance)  # (draws, ways)

        def of_way(acc: np.ndarray, way: int) -> np.ndarray:
            return left(acc)[:, way]

        found: dict[str, Number] = {name: partial(of_way, way=way) for way, name in enumerate(others, start=1)}
        return {
            "all": lambda acc: left(acc)[:, 1:].mean(1),
            **found,
            "RR": lambda acc: (100 * acc[:, 1:] / acc[:, :1]).mean(1),
        }


class InContextOptions(AgainstBaseOptions):
    """Options of the metric."""

    base: str = Field("shots_0", min_length=1, description="the way without examples")


class InContext(AgainstBase):
    """RIAM: what examples in context add."""

    Options = InContextOptions

    def numbers(self, others: Sequence[str], chance: float) -> dict[str, Number]:
        def gain(acc: np.ndarray) -> np.ndarray:
            return (acc - acc[:, :1]) / (acc[:, :1] - chance)  # (draws, ways)

        def of_way(acc: np.ndarray, way: int) -> np.ndarray:
            return 50 + 50 * gain(acc)[:, way]

        found: dict[str, Number] = {name: partial(of_way, way=way) for way, name in enumerate(others, start=1)}
        return {
            "all": lambda acc: 50 + 50 * gain(acc)[:, 1:].mean(1),
            **found,
            "plain": lambda acc: gain(acc)[:, 1:].mean(1),
        }


class MatchingOptions(WaysMetricOptions):
    """Options of the metric."""

    base: str = Field("plain", min_length=1, description="the way in which options have their own names")


class Matching(WaysMetric):
    """MR: whether the chosen place stays when options are renamed."""

    Options = MatchingOptions
    options: MatchingOptions

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        base = {(row.cluster, row.notes["asked"]): row.notes["place"] for row in rows if row.notes["way"] == self.options.base}
        stays: dict[str, list[tuple[float, str]]] = defaultdict(list)
        right: list[tuple[float, str]] = []
        for row in rows:
            key = row.cluster, row.notes["asked"]
            if row.notes["way"] != self.options.base and key in base:
                same = base[key] is not None and base[key] == row.notes["place"]
                stays[row.notes["way"]].append((100.0 * same, row.cluster))
                right.append((100.0 * row.notes["right"], row.cluster))
        named_ = {"all": [one for of in stays.values() for one in of], **stays, "accuracy": right}
        return {name: mean([v for v, _ in of], [c for _, c in of], self.unit) for name, of in named_.items()}


class Spread(WaysMetric):
    """Standard deviation over ways of the accuracy."""

    unit = "share"
    better = "lower"

    def over_all(self, rows: Sequence[Row]) -> dict[str, Measurement]:
        ways = sorted({row.notes["way"] for row in rows})
        numbers: dict[str, Number] = {
            "all": lambda acc: acc.std(1),
            "mean": lambda acc: acc.mean(1),
            "least": lambda acc: acc.min(1),
            "most": lambda acc: acc.max(1),
        }
        return self.made(rows, ways, numbers)
