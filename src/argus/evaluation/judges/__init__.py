"""Judges: models that grade answers, by prompts that are data and verdicts that are read, never guessed."""

from argus.core.registry import Component

_JUDGES = "argus.evaluation.judges"

COMPONENTS = (
    Component("judge", "grade", f"{_JUDGES}.grade:Grade", "one label per answer, from labels and a prompt of your own"),
    Component(
        "judge",
        "hallucination",
        f"{_JUDGES}.hallucination:Hallucination",
        "how much of a description its picture's true description contradicts, 1-10",
        "touchstone",
    ),
    Component("judge", "mmdu", f"{_JUDGES}.mmdu:MMDU", "six qualities and an overall score of a turn, 1-10 each", "mmdu"),
    Component(
        "judge",
        "touchstone",
        f"{_JUDGES}.touchstone:TouchStone",
        "answer and reference side by side, both ways round, a description in place of the picture",
        "touchstone",
    ),
    Component(
        "judge",
        "touchstone_seen",
        f"{_JUDGES}.touchstone:TouchStoneSeen",
        "the same with the picture in place of the description; its numbers are not TouchStone's",
        "touchstone",
    ),
)
