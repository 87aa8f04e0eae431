"""Partners by rule for `subquestions`: who asks for details, and who concludes. They see words alone, as language models do.

    attributes   "Is there a red star?" -> "What colour is the thing?", "What shape is the thing?" -> yes if it is red and a star

A question in other words than the world's names no attribute, and is asked as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from argus.evaluation.metrics.normalise import text_1
from argus.evaluation.wording import KIND


@dataclass(slots=True)
class Case:
    """A question while it is being worked on.

    Args:
        question: what has to be answered.
        options: the possible answers.
        caption: the model's own description of the picture.
        exchange: sub-questions and the model's answers so far.
        analysis: what the last conclusion said.
    """

    question: str
    options: list[str]
    caption: str = ""
    exchange: list[tuple[str, str]] = field(default_factory=list)
    analysis: str = ""


def ask_attributes(case: Case) -> str:
    """One sub-question for each attribute that the question names; a question that names none is asked as it is."""
    kinds = dict.fromkeys(KIND[word] for word in text_1(case.question).split() if word in KIND)
    parts = [f"What {kind} is the thing?" for kind in kinds] or [case.question]
    return "\n".join(f"Sub-question {n}: {part}" for n, part in enumerate(parts, start=1))


def conclude_attributes(case: Case, last: bool) -> str:
    """Yes where the question names every answer, no where it does not; not sure where an answer says nothing."""
    said = [text_1(answer) for _, answer in case.exchange]
    analysis = f"Analysis: the answers are {', '.join(said) or 'missing'}."
    wanted = "yes" if set(said) <= set(text_1(case.question).split()) else "no"
    if wanted in case.options and said and all(said):
        return f"{analysis} More Likely Answer: {case.options.index(wanted) + 1}"
    return f"{analysis} More Likely Answer: {1 if last else 'not sure'}"


ASKERS: dict[str, Callable[[Case], str]] = {"attributes": ask_attributes}
REASONERS: dict[str, Callable[[Case, bool], str]] = {"attributes": conclude_attributes}
