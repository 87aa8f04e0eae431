"""Which option an answer names: ChEF's extraction for multiple choice (arXiv 2311.02692), rule by rule as published.

    a  cut at "###", what stands behind the last "Assistant:", blanks dropped
    b  a capital letter with a period anywhere: the answer becomes "(X)" of the first; else "(X" anywhere: the same
    c  of the words exactly one is a bare letter A..G, and it is no article: none is "A", or there are fewer than three words
    d  the first of twelve forms, "(X)" to ":X).", that is the form of a word for exactly one letter
    e  the answer is an option's text
    f  it holds exactly one option's text, case ignored
    g  nothing, which is wrong

`mcq[match_ratio]` is the share of answers from which an option was read at all. Rules b to d look at letters before the options'
texts, so "The lion. It is A" of (cat, dog) is A: the rules are kept for comparison with published numbers. Letters stand for
the options in their order, whatever form these have; their texts are the metadata `choices` where options are letters. Circular
accuracy is `mcq[item]` where the rotations of a question share an item, vanilla accuracy `mcq[vanilla]` where the scenario
marks the unrotated ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score

LETTERS = "ABCDEFG"
FORMS = ("({})", "({}).", "{}.", "{},", "{}:", "{})", "{}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_PERIOD, _OPEN = re.compile(r"([A-Z])\."), re.compile(r"\(([A-Z])")


def extracted(text: str, options: Sequence[str]) -> str | None:
    """The letter of the option that an answer names; None where it names none.

    >>> [extracted(text, ["cat", "dog"]) for text in ("(B", "A small dog", "cat or dog", "C.")]
    ['B', 'B', None, 'C']
    """
    said = text.split("###")[0].split("Assistant:")[-1].strip()  # a
    if lettered := _PERIOD.search(said) or _OPEN.search(said):  # b
        said = f"({lettered[1]})"
    words = said.split()
    bare = [word for word in words if len(word) == 1 and word in LETTERS]
    if len(set(bare)) == 1 and ("A" not in bare or len(words) < 3):  # c
        return bare[0]
    for form in FORMS:  # d
        formed = [letter for letter in LETTERS if form.format(letter) in words]
        if len(formed) == 1:
            return formed[0]
    if said in options:  # e
        return LETTERS[list(options).index(said)]
    held = [letter for letter, option in zip(LETTERS, options, strict=False) if option.lower() in said.lower()]  # f
    return held[0] if len(held) == 1 else None


class MCQ(AnswerMetric):
    """Share of questions whose right option was named."""

    Options = NoOptions

    def applies(self, sample: Sample) -> bool:
        return 1 < len(sample.options) <= len(LETTERS) and sample.target in sample.options

    def score(self, sample: Sample, answer: Answer) -> Score:
        right = LETTERS[sample.options.index(sample.target or "")]
        if answer.text in sample.options:  # chosen among them, so there is nothing to extract
            said: str | None = LETTERS[sample.options.index(answer.text)]
        else:
            said = extracted(answer.text, sample.metadata.get("choices", sample.options))
        return Score(float(said == right), said or "", {"match_ratio": (float(said is not None), 1.0)})
