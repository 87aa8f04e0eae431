"""Every question once per rotation of its options (CircularEval, MMBench, arXiv 2307.06281).

    A. red  B. green  C. blue   ->   also  A. green  B. blue  C. red   and   A. blue  B. red  C. green

The rotations of a question form one item; the group `item` of a measurement counts an item only if every rotation is right, so a
habit of answering "A" earns nothing. Made for instructions that show the options.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import PICTURES
from argus.evaluation.options import Named
from argus.evaluation.scenarios.base import Group, Scenario, scenario_of


class CircularOptions(Options):
    """Whose questions."""

    of: Named = Field(description="the scenario: a name, or {name: {options}}")


class Circular(Scenario):
    """Rotates options; `samples` counts items, not rotations."""

    Options = CircularOptions
    options: CircularOptions

    def __init__(self, options: CircularOptions) -> None:
        super().__init__(options)
        self.inner = scenario_of(options.of)

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        for group in self.inner.groups(samples, seed):
            yield Group(group.id, [r for sample in group.samples for r in rotations(sample)], group.errors)


def rotations(sample: Sample) -> list[Sample]:
    """A question once per rotation of its options, and of the pictures that belong to them; a free question once."""
    options, pictures = list(sample.options), list(sample.metadata.get(PICTURES, []))
    return [
        replace(
            sample,
            id=f"{sample.id}/r{turn}" if turn else sample.id,
            options=options[turn:] + options[:turn],
            metadata={
                **sample.metadata,
                "item": sample.id,
                **({PICTURES: pictures[turn:] + pictures[:turn]} if pictures else {}),
            },
        )
        for turn in range(max(1, len(options)))
    ]
