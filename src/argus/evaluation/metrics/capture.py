"""CAPTURE of a caption against its references (arXiv 2405.19092); see `argus.evaluation.captions` for the formula.

A question's references are its target and, where it has any, `references` in its metadata; the score is the mean over them.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.captions import Encoder, capture, parse
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, Score


class CaptureOptions(Options):
    """Options of the metric."""

    encoder: Literal["none", "minilm"] | Path = Field(
        "none", description="third stage: none, minilm (extra `captions`), or a folder"
    )
    empty: Literal["official", "renormalise"] = Field(
        "official", description="a channel empty on both sides scores 0 as published, or is left out"
    )


class Capture(AnswerMetric):
    """F1 of objects, attributes and relations."""

    Options = CaptureOptions
    options: CaptureOptions

    def applies(self, sample: Sample) -> bool:
        """Captions: free answers with the facts they state."""
        return sample.target is not None and not sample.options and bool(sample.metadata.get("facts"))

    @cached_property
    def encode(self) -> Encoder | None:
        """The third stage's encoder, loaded when first needed."""
        from argus.evaluation.sentences import SentenceEncoder

        which = self.options.encoder
        return None if which == "none" else SentenceEncoder(None if which == "minilm" else Path(which))

    def score(self, sample: Sample, answer: Answer) -> Score:
        said = parse(answer.text)
        references = [sample.target or "", *sample.metadata.get("references", [])]
        lenient = self.options.empty == "renormalise"
        scores = [capture(said, parse(text), encode=self.encode, renormalise=lenient).score for text in references]
        return Score(sum(scores) / len(scores), answer.text)
