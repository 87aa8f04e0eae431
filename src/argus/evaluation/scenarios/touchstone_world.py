"""TouchStone (arXiv 2308.16890) on the procedural world: drawn scenes, completely described, in place of annotated ones.

    H = every thing with its properties, as the scene knows them        R = the true answer
    facts = what a right answer states, so that `scripted:truth` judges exactly

Each picture is asked for a detailed description and for attributes and relations. Telling stories and several pictures have no
exact truth here and are left to the published items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from argus.core.errors import RecipeError
from argus.core.registry import Options, build
from argus.core.sample import Sample
from argus.evaluation.scenarios.base import Group, Scenario
from argus.evaluation.scenarios.touchstone import ABILITIES
from argus.evaluation.scenarios.world import SEED_STRIDE, to_samples
from argus.world.domain import Domain, Drawing

TASKS = {  # family of questions -> ability, number of its sub-task
    **dict.fromkeys(("colour", "shape", "size", "texture", "existence", "count"), ("Visual Recognition", 0)),
    **dict.fromkeys(("relation", "comparison", "nearest", "odd_one_out", "position"), ("Visual Comprehension", 0)),
    "caption": ("Basic Description", 1),
}


class TouchStoneWorldOptions(Options):
    """Options of the scenario."""

    split: Literal["train", "validation", "test"] = Field("test", description="whose scenes are drawn")
    size: int = Field(96, ge=32, le=2048, description="side of the pictures in pixels")
    questions: int = Field(3, ge=0, le=64, description="questions per picture beside its description")
    settings: dict[str, Any] = Field(default_factory=dict, description="options of the domain `objects`")


class TouchStoneWorld(Scenario):
    """Draws as many scenes as the questions need."""

    Options = TouchStoneWorldOptions
    options: TouchStoneWorldOptions

    def __init__(self, options: TouchStoneWorldOptions) -> None:
        super().__init__(options)
        self.domain: Domain = build("domain", "objects", options.settings)
        self.asked = tuple(family for family in TASKS if family != "caption")

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        if samples is None:
            raise RecipeError("the world has no end; say how many samples", where="scenario 'touchstone_world'")
        index = seed * SEED_STRIDE
        while samples > 0:
            group = self.group(index, samples)
            yield group
            samples -= len(group.samples)
            index += 1

    def group(self, index: int, most: int) -> Group:
        """The items of one scene, the description first."""
        o = self.options
        drawing = self.domain.draw(o.split, index, o.size, 1, ("caption",))
        rng = self.domain.rng(o.split, index, 1)
        if o.questions:
            drawing.questions += self.domain.questions(drawing.scene, rng, o.questions, self.asked)
        return Group(drawing.id, [item(sample, drawing) for sample in to_samples(drawing, "objects")[:most]])


def item(sample: Sample, drawing: Drawing) -> Sample:
    """A question of the world as an item of the benchmark."""
    ability, task = TASKS[sample.metadata["family"]]
    (caption,) = (q for q in drawing.questions if q.family == "caption")
    known = {
        "family": ABILITIES[ability][task],
        "category": ability,
        "description": f"The picture shows {'; '.join(caption.facts)}.",
        "facts": sample.metadata["facts"] or (sample.target or "",),
    }
    return replace(sample, metadata={**sample.metadata, **known})
