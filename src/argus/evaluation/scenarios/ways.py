"""Every question in several ways: the same items, put otherwise, so that what the change is worth can be measured item by item.

    ways:
      of: world/objects
      ways:
        clean: plain
        noise_3: {corrupted: {picture: gaussian_noise, severity: 3}}
        spelling: [{corrupted: {text: characters, severity: 2}}, options]

A way is an instruction, or several in turn, as an evaluation's own; that one is applied after it, to all ways alike. Each way
is a branch: `accuracy[noise_3]`. What compares ways - the desiderata of ChEF (arXiv 2311.02692): `rrm`, `riam`, `mr`, and
`spread` - are metrics that know the item of a record (`asked` in the metadata) and its way. The group `item` counts an item
whose ways are all right; where the items are rotations already, those of a way are one item, as without ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

from pydantic import Field

from argus.core.errors import ArgusError
from argus.core.registry import Options, build
from argus.core.sample import Sample
from argus.evaluation.instructions.base import Instruction
from argus.evaluation.options import Named, named
from argus.evaluation.scenarios.base import Group, Scenario, scenario_of


class WaysOptions(Options):
    """Whose questions, and how they are put."""

    of: Named = Field(description="the scenario: a name, or {name: {options}}")
    ways: dict[str, Named | list[Named]] = Field(min_length=2, description="way -> its instruction, or several in turn")


class Ways(Scenario):
    """Puts each question in each way; `samples` counts items, not ways."""

    Options = WaysOptions
    options: WaysOptions

    def __init__(self, options: WaysOptions) -> None:
        super().__init__(options)
        self.inner = scenario_of(options.of)
        self.ways: dict[str, list[Instruction]] = {
            way: [build("instruction", *named(one)) for one in (given if isinstance(given, list) else [given])]
            for way, given in options.ways.items()
        }

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        for group in self.inner.groups(samples, seed):
            put, errors = [], dict(group.errors)
            for way, instructions in self.ways.items():  # way by way, so that questions about one picture stay together
                for sample in group.samples:
                    try:
                        put.append(_named(reduce(lambda s, one: one.apply(s), instructions, sample), sample, way))
                    except (ArgusError, OSError, ValueError) as error:
                        errors[f"{sample.id}@{way}"] = f"{type(error).__name__}: {error}"
            yield Group(group.id, put, errors)


def _named(put: Sample, sample: Sample, way: str) -> Sample:
    item = sample.metadata.get("item")
    known = {
        "way": way,
        "asked": sample.id,
        "item": f"{item}@{way}" if item else sample.id,
        "branches": [*sample.metadata.get("branches", []), way],
    }
    return replace(put, id=f"{sample.id}@{way}", metadata={**put.metadata, **known})
