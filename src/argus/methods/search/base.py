"""What a search is, and the two verbs it needs from a model.

A search is a generator: it yields the looks it wants next and is sent their confidences. So it reads like a search over one
picture, while `explore` runs those of a whole batch side by side and asks all their looks at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from PIL.Image import Image

from argus.core import registry
from argus.core.sample import Message
from argus.methods.search.tree import Box


@dataclass(frozen=True, slots=True)
class View:
    """Pictures shown together.

    Args:
        name: equal for views that show the same, over all questions about one picture.
        images: what is shown, in order.
        prefix: text that says what they are; stands in front of every question about them.
    """

    name: str
    images: tuple[Image, ...]
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """One question of yes or no about a view; `words` are the answers, (yes, no)."""

    view: View
    prompt: str
    words: tuple[str, str]


class Asked(Protocol):
    """A model as a search sees it."""

    def confidences(self, looks: Sequence[Look]) -> list[float]:
        """2 p(yes) - 1 for each look, p over the first token of yes and no alone: tanh((z_yes - z_no) / 2), from -1 to 1."""
        ...

    def write(self, conversations: Sequence[list[Message]], max_new_tokens: int) -> list[str]:
        """The model's greedy turn behind each conversation of text."""
        ...


@dataclass(slots=True)
class Found:
    """Where a search ended.

    Args:
        view: what the question is to be answered from.
        cues: what was looked for.
        boxes: what was found: one box, or several for several cues.
        visited: boxes in the order of their visits, over all cues.
        pops: nodes visited, per cue.
        zoom_ins, zoom_outs: steps to a deeper node and to a less deep one, per cue.
        looks: prompts the model was asked, repeated ones once.
    """

    view: View
    cues: list[str]
    boxes: list[Box] = field(default_factory=list)
    visited: list[Box] = field(default_factory=list)
    pops: list[int] = field(default_factory=list)
    zoom_ins: list[int] = field(default_factory=list)
    zoom_outs: list[int] = field(default_factory=list)
    looks: int = 0

    def record(self) -> dict[str, Any]:
        """As plain values: all but the pictures."""
        names = ("cues", "boxes", "visited", "pops", "zoom_ins", "zoom_outs", "looks")
        return {name: getattr(self, name) for name in names}


Searching = Generator[list[Look], list[float], Found]


class Search(ABC):
    """Finds the view from which a question is answered."""

    Options: ClassVar[type[registry.Options]]

    def __init__(self, options: registry.Options) -> None:
        self.options = options

    def refusal(self, cues: Sequence[str] | None) -> str | None:
        """Why a question that comes with these cues (None: with none) cannot be searched for; None when it can."""
        return None

    @abstractmethod
    def cues(self, asked: Asked, questions: Sequence[str], given: Sequence[Sequence[str] | None]) -> list[list[str]]:
        """What to look for, for each question; `given` is what questions of the procedural world come with."""

    @abstractmethod
    def search(self, picture: Image, question: str, cues: Sequence[str], name: str) -> Searching:
        """Look for the cues of one question; `name` is the picture's."""


def explore(asked: Asked, searches: Sequence[Searching]) -> list[Found]:
    """Run searches side by side: each round asks what all of them want to know, in one call."""
    found: dict[int, Found] = {}
    wanted: dict[int, list[Look]] = {}

    def go_on(i: int, answers: list[float] | None) -> None:
        try:
            wanted[i] = searches[i].send(answers) if answers is not None else next(searches[i])
        except StopIteration as end:
            found[i] = end.value

    for i in range(len(searches)):
        go_on(i, None)
    while wanted:
        round_, wanted = wanted, {}
        answers = asked.confidences([look for looks in round_.values() for look in looks])
        at = 0
        for i, looks in round_.items():
            go_on(i, answers[at : at + len(looks)])
            at += len(looks)
    return [found[i] for i in range(len(searches))]
