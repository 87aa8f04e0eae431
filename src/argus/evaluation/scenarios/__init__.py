"""Scenarios: what is asked, as groups of questions about the same pictures."""

from argus.core.registry import Component

COMPONENTS = (
    Component("scenario", "world", "argus.evaluation.scenarios.world:World", "questions of the procedural world, leak-free"),
    Component("scenario", "file", "argus.evaluation.scenarios.file:File", "any dataset that argus can read"),
)
