"""Exact truth of answers whose meaning is known (the inferencer `worded`), and how well other metrics decide as it does.

    meant        right if an answer means the target and nothing else
    same_verdict for each of the metrics `of`: share of answers on which it decides as the metric `truth` does

A mixture of right and wrong content is wrong, as in Tiny LVLM-eHub (arXiv 2308.03729); decisions agree where both scores are
on the same side of 0.5, an answer without a score counts as a decision against it. `same_verdict[<metric>]` stands beside the
first one's.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from argus.core.registry import Options, build
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score
from argus.evaluation.options import Different, Named, named


class Meant(AnswerMetric):
    """What is meant is the target."""

    Options = NoOptions

    def score(self, sample: Sample, answer: Answer) -> Score:
        meant = answer.notes.get("meant", [answer.text])
        return Score(float(meant == [sample.target]), " / ".join(meant))


class SameVerdictOptions(Options):
    """Who is compared with whom."""

    of: Different = Field(min_length=1, description="metrics whose decisions are compared, each a name or {name: {options}}")
    truth: Named = Field("meant", description="metric that decides rightly")


class SameVerdict(AnswerMetric):
    """Agreement of metrics with the truth."""

    Options = SameVerdictOptions
    options: SameVerdictOptions

    def __init__(self, options: SameVerdictOptions) -> None:
        super().__init__(options)
        self.of: dict[str, AnswerMetric] = {named(one)[0]: build("metric", *named(one)) for one in options.of}
        self.truth: AnswerMetric = build("metric", *named(options.truth))

    def applies(self, sample: Sample) -> bool:
        return all(metric.applies(sample) for metric in (self.truth, *self.of.values()))

    def score(self, sample: Sample, answer: Answer) -> Score:
        return self.scores([sample], [answer])[0]

    def scores(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> list[Score]:
        true = [_right(score) for score in self.truth.scores(samples, answers)]
        found = {name: [_right(s) for s in metric.scores(samples, answers)] for name, metric in self.of.items()}
        first = next(iter(found))
        return [
            Score(
                float(found[first][i] == right),
                ", ".join(f"{name} {('wrong', 'right')[said[i]]}" for name, said in found.items()),
                {name: (float(said[i] == right), 1.0) for name, said in found.items()},
            )
            for i, right in enumerate(true)
        ]


def _right(score: Score) -> bool:
    return score.value is not None and score.value >= 0.5
