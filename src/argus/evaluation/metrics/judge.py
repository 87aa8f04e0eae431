"""What judges think of an answer; see `argus.evaluation.judges`.

    judge: {of: {touchstone: {model: "openai:<name>@<base-url>"}}}
    hallucination: {of: {hallucination: {model: ...}}}        the same by another name, beside another judge
    judge: {of: [{grade: {model: ...}}, {grade: {model: ...}}, {grade: {model: ...}}], combine: vote, labels: human}

An answer without a readable verdict has no score; `judge[unreadable]` is the share of such verdicts. An answer's record holds
each request, reply, verdict, judging model and date. With `labels` - a field of the samples' metadata - or `truth` - a judge that
knows, such as `scripted:truth` - the judges' labels are compared: `judge[agreement]` and Cohen's `judge[kappa]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from argus.core.errors import RecipeError
from argus.core.registry import Options, build
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.judges.base import Judge, Judgement
from argus.evaluation.judges.together import averaged, voted
from argus.evaluation.metrics.base import AnswerMetric, Score
from argus.evaluation.options import Named, named


class JudgeMetricOptions(Options):
    """Options of the metric."""

    of: dict[str, dict] | list[Named] = Field(min_length=1, description="the judge as {name: {options}}, or a list of several")
    combine: Literal["mean", "vote"] = Field("mean", description="how several judges become one")
    labels: str | None = Field(None, description="field of the samples' metadata with the label that people gave")
    truth: Named | None = Field(None, description="a judge whose labels are taken as true")

    @model_validator(mode="after")
    def _one(self) -> JudgeMetricOptions:
        if isinstance(self.of, dict) and len(self.of) != 1:
            raise ValueError("several judges are a list")
        if self.labels and self.truth:
            raise ValueError("labels come from people or from a judge, not from both")
        return self


class JudgeMetric(AnswerMetric):
    """Scores by judges."""

    Options = JudgeMetricOptions
    options: JudgeMetricOptions

    def __init__(self, options: JudgeMetricOptions) -> None:
        super().__init__(options)
        given: Sequence[Named] = [options.of] if isinstance(options.of, dict) else options.of
        self.judges: list[Judge] = [build("judge", *named(one)) for one in given]
        self.true: Judge | None = build("judge", *named(options.truth)) if options.truth else None
        first = self.judges[0]
        if any((j.unit, j.better) != (first.unit, first.better) for j in self.judges):
            raise RecipeError("judges that score on different scales cannot be combined", where="metric 'judge'")
        self.votes = options.combine == "vote" and len(self.judges) > 1
        self.unit = first.vote_unit if self.votes else first.unit
        self.better = first.better

    def applies(self, sample: Sample) -> bool:
        return all(judge.applies(sample) for judge in self.judges)

    def score(self, sample: Sample, answer: Answer) -> Score:
        return self.scores([sample], [answer])[0]

    def scores(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> list[Score]:
        texts = [answer.text for answer in answers]
        each = list(zip(*(judge.judge(samples, texts) for judge in self.judges), strict=True))
        true = self.true.judge(samples, texts) if self.true else [None] * len(samples)
        return [self._score(sample, found, other) for sample, found, other in zip(samples, each, true, strict=True)]

    def _score(self, sample: Sample, found: Sequence[Judgement], true: Judgement | None) -> Score:
        one = found[0] if len(found) == 1 else voted(found, self.judges[0].worth) if self.votes else averaged(found)
        other = true.label if true else sample.metadata.get(self.options.labels) if self.options.labels else None
        pair = None if one.label is None or other is None else (one.label, str(other))
        notes = {"label": one.label, "verdicts": [verdict.record() for verdict in one.verdicts]}
        said = "; ".join(verdict.error or str(verdict.value) for verdict in one.verdicts)
        return Score(one.value, said, one.ratios, pair, notes)

    def ratio_unit(self, name: str) -> str:
        return self.judges[0].ratio_unit(name)
