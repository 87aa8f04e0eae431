"""Questions of the procedural world: no picture of it exists before it is drawn, so none can have been trained on.

Pictures are those of one split, whose seeds are disjoint from the other splits'. Seed k starts at scene k * 10^9 of the
split: seed 0 is the standard set that everybody shares, any other seed a fresh one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from argus.core.errors import RecipeError, nearest
from argus.core.registry import Options, build
from argus.core.sample import Message, Sample, in_words
from argus.evaluation.inferencers.base import PICTURES
from argus.evaluation.scenarios.base import Group, Scenario
from argus.world.data import asked, demonstrated
from argus.world.domain import Domain, Drawing

SEED_STRIDE = 10**9


class WorldOptions(Options):
    """Options of the scenario."""

    domain: str = Field(description="domain of the world, as `argus list domain` names it")
    split: Literal["train", "validation", "test"] = Field("test", description="whose scenes are drawn")
    size: int = Field(96, ge=32, le=2048, description="side of the pictures in pixels")
    questions: int = Field(8, ge=1, le=256, description="questions per picture")
    families: list[str] = Field(default_factory=list, description="question families; all of the domain when empty")
    settings: dict[str, Any] = Field(default_factory=dict, description="the domain's own options")
    told: bool = Field(False, description="scenes are told in words instead of shown: the same questions without a picture")


class World(Scenario):
    """Draws as many scenes as the questions need."""

    Options = WorldOptions
    options: WorldOptions

    def __init__(self, options: WorldOptions) -> None:
        super().__init__(options)
        self.domain: Domain = build("domain", options.domain, options.settings)
        for family in options.families:
            known = self.domain.families + self.domain.more_families
            if family not in known:
                raise RecipeError(
                    f"domain '{options.domain}' has no question family '{family}'.",
                    hint=nearest(family, known),
                )

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        if samples is None:
            raise RecipeError("the world has no end; say how many samples", where=f"scenario 'world/{self.options.domain}'")
        o, index = self.options, seed * SEED_STRIDE
        while samples > 0:
            drawing = self.domain.draw(o.split, index, o.size, o.questions, tuple(o.families))
            questions = to_samples(drawing, o.domain)[:samples]
            if o.told:
                words = self.domain.describe(drawing.scene)
                questions = [replace(q, messages=[in_words(m, words) for m in q.messages]) for q in questions]
            yield Group(drawing.id, questions)
            samples -= max(1, len(questions))
            index += 1


def to_samples(drawing: Drawing, domain: str) -> list[Sample]:
    """One sample per question of a drawing."""
    pictures = [Image.fromarray(pixels) for pixels in drawing.shown]
    drawn = {n: [Image.fromarray(pixels) for pixels in of] for n, of in enumerate(drawing.drawn) if of}
    shown = [demonstrated(one) for one in drawing.demonstrations]
    known = {"demonstrations": [Sample(f"{drawing.id}/d{n}", one) for n, one in enumerate(shown)]} if shown else {}
    return [
        Sample(
            f"{drawing.id}/{n}",
            [Message("user", asked(q, pictures))],
            q.answer,
            list(q.options),
            {
                "family": q.family,
                "domain": domain,
                "picture": drawing.id,
                "trap": q.trap,
                "boxes": q.boxes,
                "scene_boxes": drawing.boxes,
                "facts": q.facts,
                "cues": q.cues,
                **known,
                **({PICTURES: drawn[n]} if n in drawn else {}),
            },
        )
        for n, q in enumerate(drawing.questions)
    ]
