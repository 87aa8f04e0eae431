"""Scenarios: what is asked, as groups of questions about the same pictures."""

from argus.core.registry import Component

COMPONENTS = (
    Component("scenario", "world", "argus.evaluation.scenarios.world:World", "questions of the procedural world, leak-free"),
    Component(
        "scenario",
        "wrong_picture",
        "argus.evaluation.scenarios.wrong_picture:WrongPicture",
        "another scenario's questions, each about the next group's pictures",
    ),
    Component(
        "scenario", "circular", "argus.evaluation.scenarios.circular:Circular", "every question once per rotation of its options"
    ),
    Component("scenario", "file", "argus.evaluation.scenarios.file:File", "any dataset that argus can read"),
)
