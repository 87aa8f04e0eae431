"""ChEF's instruction (arXiv 2311.02692): a query of its task's pool, the options printed, and the form of their answers.

    How many legs has it? There are several options:          layout: mmbench; the options are "(A", "(B" as they are scored
    (A) two
    (B) four
    The answer is                                             query 0 of the pool `vqa`

A pool holds ways to ask; a recipe takes one of them by its number, the same for all questions, so that runs that differ in the
number show how far a score hangs on the wording. `standard` asks nothing beyond the question. Options as they are answered:

    letter   "(A"      an open parenthesis and no closing one, so that the letter is the last token
    content  "(A) two"
    plain    "two"

The pool of VQA suffixes is the paper's; its 20 prompts for classes and 21 for captions are not part of its text, those here
are our own wordings, and `queries` takes any others. The texts of the options stay in the sample's metadata, `choices`.
"""

from __future__ import annotations

from dataclasses import replace
from string import ascii_uppercase
from typing import Literal

from pydantic import Field, model_validator

from argus.core.errors import DataError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.instructions.leading import reworded

QUESTION = "{question}"
POOLS: dict[str, tuple[str, ...]] = {
    "standard": (QUESTION,),
    "vqa": tuple(
        f"{QUESTION}\n{suffix}".rstrip("\n")
        for suffix in (
            "The answer is",
            "What is the correct option for this question?",
            "",
            "What is the answer?",
            "The answer for the question is",
            "ANSWER:",
            "The answer (option) is",
            "Answer:",
        )
    ),
    "classification": (
        "What is in the picture?",
        "Name the class of the thing in the picture.",
        "The photo of the",
        "Which object does the image show?",
        "This is a picture of what?",
    ),
    "caption": (
        "Describe the picture in one sentence.",
        "A photo of",
        "Write a short caption for the image.",
        "What is happening here?",
        "Summarise what can be seen.",
    ),
}


class QueryOptions(Options):
    """How a question is put, and its options answered."""

    pool: Literal["standard", "vqa", "classification", "caption"] = Field("standard", description="task whose queries are used")
    index: int = Field(0, ge=0, description="which of them")
    queries: list[str] = Field(default_factory=list, description="a pool of your own in its place; {question} is the question")
    layout: Literal["none", "mmbench", "scienceqa"] = Field("none", description="how the options are printed behind the question")
    answer: Literal["letter", "content", "plain"] = Field("plain", description="form of the options as they are answered")

    @model_validator(mode="after")
    def _there(self) -> QueryOptions:
        if self.index >= len(self.pooled()):
            raise ValueError(f"index {self.index}, but the pool has queries 0 to {len(self.pooled()) - 1}")
        if self.answer != "plain" and self.layout == "none":
            raise ValueError("letters are answered only where a layout prints them")
        return self

    def pooled(self) -> tuple[str, ...]:
        """The queries."""
        return tuple(self.queries) or POOLS[self.pool]


class Query(Instruction):
    """Rewrites the last turn, and the options where they are lettered."""

    Options = QueryOptions
    options: QueryOptions

    def apply(self, sample: Sample) -> Sample:
        query = self.options.pooled()[self.options.index]
        asked = reworded(sample, lambda text: query.replace(QUESTION, laid_out(text, sample, self.options.layout)))
        if self.options.answer == "plain" or not sample.options:
            return asked
        letters = [f"({letter}" for letter in ascii_uppercase[: len(sample.options)]]
        forms = (
            letters if self.options.answer == "letter" else [f"{a}) {b}" for a, b in zip(letters, sample.options, strict=True)]
        )
        target = forms[sample.options.index(sample.target)] if sample.target in sample.options else sample.target
        return replace(asked, options=forms, target=target, metadata={**sample.metadata, "choices": list(sample.options)})


def laid_out(text: str, sample: Sample, layout: str) -> str:
    """A question with its options behind it; a hint comes before it in MMBench's layout."""
    if layout == "none" or not sample.options:
        return text
    if len(sample.options) > len(ascii_uppercase):
        raise DataError(f"{len(sample.options)} options, but only 26 letters", where=sample.id)
    printed = [f"({letter}) {option}" for letter, option in zip(ascii_uppercase, sample.options, strict=False)]
    if layout == "scienceqa":
        return f"Question: {text}\nOptions: {' '.join(printed)}\n"
    asked = " ".join(part for part in (sample.metadata.get("hint"), text) if part)
    return f"{asked} There are several options:\n" + "\n".join(printed) + "\n"
