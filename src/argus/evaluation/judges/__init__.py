"""Judges: models that grade answers, by prompts that are data and verdicts that are read, never guessed."""

from argus.core.registry import Component

_JUDGES = "argus.evaluation.judges"

COMPONENTS = (
    Component(
        "judge",
        "core_mm",
        f"{_JUDGES}.core_mm:CoreMM",
        "the answer, or else the share of its reasoning steps; hard items count twice",
        "core-mm",
    ),
    Component(
        "judge",
        "ensemble",
        "argus.evaluation.judges.ensemble:Ensemble",
        "right or wrong by five prompts' majority, answer and right answer in words",
        "tiny-lvlm-ehub",
    ),
    Component("judge", "grade", f"{_JUDGES}.grade:Grade", "one label per answer, from labels and a prompt of your own"),
    Component(
        "judge",
        "hallucination",
        f"{_JUDGES}.hallucination:Hallucination",
        "how much of a description its picture's true description contradicts, 1-10",
        "touchstone",
    ),
    Component("judge", "language", f"{_JUDGES}.language:Language", "how well a chain of thought argues, 0-10, six times", "chef"),
    Component("judge", "mmdu", f"{_JUDGES}.mmdu:MMDU", "six qualities and an overall score of a turn, 1-10 each", "mmdu"),
    Component(
        "judge", "mmie", f"{_JUDGES}.mmie:MMIE", "texts and pictures by a rubric, 0-6, as the published script does", "mmie"
    ),
    Component("judge", "mmie_strict", f"{_JUDGES}.mmie:MMIEStrict", "the same with nothing cut, left out or misread", "mmie"),
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
