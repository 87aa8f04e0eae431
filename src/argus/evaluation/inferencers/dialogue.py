"""A dialogue, turn by turn: each question follows the model's own answers to those before it (MMDU, arXiv 2406.11833).

    turn i:  u_1 a_1 ... u_{i-1} a_{i-1} u_i  ->  a_i            a: what the model said, to the letter

A group is a dialogue, and its questions are the turns in their order, each with all turns before it. A model on this machine
keeps the KV cache from turn to turn and is fed what is new; of others the same turn of all dialogues at hand is asked together.
`history: reference` puts the reference answers in place of the model's own: another measure, in which a mistake is not carried
on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from argus.core.errors import DataError
from argus.core.registry import Options
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question


@runtime_checkable
class ContinuingModel(Protocol):
    """A model that keeps what it read of a dialogue."""

    def thread(self) -> Any:
        """What is kept of a new dialogue; None where nothing can be."""
        ...

    def go_on(self, thread: Any, question: Question, max_new_tokens: int) -> Answer:
        """The greedy answer to the next turn of a dialogue."""
        ...


class DialogueOptions(Options):
    """Options of the inferencer."""

    max_new_tokens: int = Field(2048, ge=1, le=8192, description="longest answer in tokens (the paper's for LLaVA)")
    history: Literal["own", "reference"] = Field("own", description="whose answers stand in the turns before")


class Dialogue(Inferencer):
    """Greedy decoding, one turn after the other."""

    Options = DialogueOptions
    options: DialogueOptions
    whole_groups = True

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        if self.options.history == "reference":
            return model.generate(questions, self.options.max_new_tokens)
        dialogues: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            dialogues.setdefault(question.group, []).append(place)
        if isinstance(model, ContinuingModel) and model.thread() is not None:
            turns = {group: [questions[place] for place in places] for group, places in dialogues.items()}
            spoken = {group: iter(self._spoken(model, of)) for group, of in turns.items()}
            return [next(spoken[question.group]) for question in questions]
        said: dict[str, list[str]] = {group: [] for group in dialogues}
        found: dict[int, Answer] = {}
        for turn in zip_longest(*dialogues.values()):
            places = [place for place in turn if place is not None]
            asked = [replace(questions[i], sample=continued(questions[i].sample, said[questions[i].group])) for i in places]
            for place, answer in zip(places, model.generate(asked, self.options.max_new_tokens), strict=True):
                found[place] = answer
                said[questions[place].group].append(answer.text)
        return [found[place] for place in range(len(questions))]

    def _spoken(self, model: ContinuingModel, turns: Sequence[Question]) -> Iterator[Answer]:
        """One dialogue, its cache kept to its end."""
        thread = model.thread()
        said: list[str] = []
        for question in turns:
            asked = replace(question, sample=continued(question.sample, said))
            answer = model.go_on(thread, asked, self.options.max_new_tokens)
            said.append(answer.text)
            yield answer


def continued(sample: Sample, said: Sequence[str]) -> Sample:
    """A turn behind the given answers in place of the reference answers.

    Raises:
        DataError: a turn before it was not asked.
    """
    own = iter(said)
    if sum(m.role == "assistant" for m in sample.messages) != len(said):
        raise DataError("an earlier turn of the dialogue could not be asked", where=sample.id)
    messages = [Message("assistant", [TextPart(next(own))]) if m.role == "assistant" else m for m in sample.messages]
    return replace(sample, messages=messages)
