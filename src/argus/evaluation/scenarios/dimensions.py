"""A taxonomy of other scenarios: each dimension asks its own, and averages are taken over branches.

    dimensions: {counting: {world/objects: {families: [count]}}, text: {world/documents: {families: [read]}}}
    branches: {image: [counting, text], all: [image]}

gives accuracy[counting], accuracy[text], accuracy[image] over all their questions, and accuracy[mean image] over the two. So a
published benchmark's protocol runs on pictures that nobody can have trained on. Every dimension gets as many questions as the
next, about pictures of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydantic import Field, model_validator

from argus.core.errors import RecipeError, nearest
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.options import Named
from argus.evaluation.scenarios.base import Group, Scenario, scenario_of


class DimensionsOptions(Options):
    """Options of the scenario."""

    dimensions: dict[str, Named] = Field(min_length=1, description="dimension -> its scenario: a name, or {name: {options}}")
    branches: dict[str, list[str]] = Field(default_factory=dict, description="branch -> its dimensions, and branches before it")

    @model_validator(mode="after")
    def _known(self) -> DimensionsOptions:
        known = {name: [name] for name in self.dimensions}
        for branch, names in self.branches.items():
            for name in names:
                if name not in known:
                    raise ValueError(f"branch '{branch}' has no dimension '{name}'. {nearest(name, known)}")
            known[branch] = self.branches[branch] = [dimension for name in names for dimension in known[name]]
        return self


class Dimensions(Scenario):
    """Asks one scenario after the other."""

    Options = DimensionsOptions
    options: DimensionsOptions

    def __init__(self, options: DimensionsOptions) -> None:
        super().__init__(options)
        self.inner = {name: scenario_of(given) for name, given in options.dimensions.items()}

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        count = len(self.inner)
        if samples is not None and samples < count:
            raise RecipeError(f"{samples} questions cannot be shared by {count} dimensions")
        for number, (name, scenario) in enumerate(self.inner.items()):
            share = None if samples is None else (samples + number) // count  # they add up to `samples`
            for group in scenario.groups(share, seed * count + number):
                errors = {f"{name}/{id_}": reason for id_, reason in group.errors.items()}
                yield Group(f"{name}/{group.id}", [self._placed(s, name) for s in group.samples], errors)

    def _placed(self, sample: Sample, dimension: str) -> Sample:
        branches = [branch for branch, names in self.options.branches.items() if dimension in names]
        metadata = {
            **sample.metadata,
            "family": dimension,
            "branches": branches,
            "picture": f"{dimension}/{sample.metadata['picture']}",
        }
        return replace(sample, id=f"{dimension}/{sample.id}", metadata=metadata)
