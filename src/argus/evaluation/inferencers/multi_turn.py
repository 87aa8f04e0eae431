"""Questions that build on each other: each names the answer to the one before it (ChEF's multi-turn PPL, arXiv 2311.02692).

    What is it? -> animal        What kind of animal is it? -> bird        What kind of bird is it? -> owl

A group's questions with one `item` are its turns, in their order; a turn's metadata `parent` is the right answer to the turn
before, as it stands in the question. `parent: truth` asks with it, whatever the model said (the paper's teacher forcing), so that
turns can be asked together. `parent: own` puts the model's own answer in its place: a mistake is carried on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Around, Question
from argus.evaluation.instructions.leading import reworded
from argus.evaluation.options import Named


class MultiTurnOptions(Options):
    """Options of the inferencer."""

    of: Named = Field("ppl", description="inferencer that answers each turn")
    parent: Literal["truth", "own"] = Field("truth", description="the answer that the next turn's question names")


class MultiTurn(Around):
    """Another inferencer's answers, turn by turn."""

    Options = MultiTurnOptions
    options: MultiTurnOptions
    whole_groups = True

    def __init__(self, options: MultiTurnOptions) -> None:
        super().__init__(options, options.of)

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        if self.options.parent == "truth":
            return self.inner.answer(model, questions)
        items: dict[tuple[str, str], list[int]] = {}
        for place, question in enumerate(questions):
            items.setdefault((question.group, str(question.sample.metadata.get("item", question.sample.id))), []).append(place)
        found: dict[int, Answer] = {}
        for n in range(max(map(len, items.values()), default=0)):
            turns = [of for of in items.values() if n < len(of)]
            asked = [_naming(questions[of[n]], found[of[n - 1]].text) if n else questions[of[n]] for of in turns]
            found |= zip((of[n] for of in turns), self.inner.answer(model, asked), strict=True)
        return [found[place] for place in range(len(questions))]


def _naming(question: Question, own: str) -> Question:
    """A question that names another parent."""
    parent = question.sample.metadata.get("parent")
    if not parent or not own:
        return question
    return replace(question, sample=reworded(question.sample, lambda text: own.join(text.rsplit(parent, 1))))
