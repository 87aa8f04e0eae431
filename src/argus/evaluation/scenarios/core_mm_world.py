"""CORE-MM (arXiv 2311.11567) on the procedural world: puzzles of one to four steps, every one of them known.

    Moderate   one or two steps        High   three or four

Each picture is asked for `questions` puzzles of the domain `puzzles`, which is where a model learns them, too: `data: {world:
{puzzles: 1}}` teaches answers, `domains: {puzzles: {rationales: true}}` the steps in front of them. `scripted:stated` judges
exactly.
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
from argus.evaluation.scenarios.world import SEED_STRIDE, to_samples
from argus.world.puzzles import KINDS

MODERATE = 2  # most steps of such an item


class CoreMMWorldOptions(Options):
    """Options of the scenario."""

    split: Literal["train", "validation", "test"] = Field("test", description="whose scenes are drawn")
    size: int = Field(96, ge=32, le=2048, description="side of the pictures in pixels")
    questions: int = Field(6, ge=1, le=64, description="puzzles per picture")
    settings: dict[str, Any] = Field(default_factory=dict, description="options of the domain `puzzles`")


class CoreMMWorld(Scenario):
    """Draws as many scenes as the puzzles need."""

    Options = CoreMMWorldOptions
    options: CoreMMWorldOptions

    def __init__(self, options: CoreMMWorldOptions) -> None:
        super().__init__(options)
        self.domain = build("domain", "puzzles", {**options.settings, "rationales": False})

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        if samples is None:
            raise RecipeError("the world has no end; say how many samples", where="scenario 'core_mm_world'")
        o, index = self.options, seed * SEED_STRIDE
        while samples > 0:
            drawing = self.domain.draw(o.split, index, o.size, o.questions)
            items = [item(sample) for sample in to_samples(drawing, "puzzles")[:samples]]
            yield Group(drawing.id, items)
            samples -= len(items)
            index += 1


def item(sample: Sample) -> Sample:
    """A puzzle as an item of the benchmark."""
    steps = sample.metadata["facts"]
    family = sample.metadata["family"]
    complexity = "Moderate" if len(steps) <= MODERATE else "High"
    known = {"family": KINDS[family], "steps": steps, "complexity": complexity, "facts": (), "branches": [family]}
    return replace(sample, options=[], metadata={**sample.metadata, **known})
