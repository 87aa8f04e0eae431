"""Another scenario's questions with the wrong pictures: each group is shown the pictures of the next one.

What is still right was not seen (a mismatch control for arXiv 2403.20330). Groups are paired in order, so that
only two are in memory: the first of a pair gets the second's pictures and the other way round; a last group without a partner, or
partners with different numbers of pictures, are left out with their reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Sample
from argus.evaluation.options import Named
from argus.evaluation.scenarios.base import Group, Scenario, scenario_of


class WrongPictureOptions(Options):
    """Whose questions."""

    of: Named = Field(description="the scenario: a name, or {name: {options}}")


class WrongPicture(Scenario):
    """Swaps the pictures of neighbours."""

    Options = WrongPictureOptions
    options: WrongPictureOptions

    def __init__(self, options: WrongPictureOptions) -> None:
        super().__init__(options)
        self.inner = scenario_of(options.of)

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        stream = self.inner.groups(samples, seed)
        while pair := list(islice(stream, 2)):
            if len(pair) == 2 and all(g.samples for g in pair) and len({len(g.samples[0].images()) for g in pair}) == 1:
                first, second = pair
                yield _shown(first, second)
                yield _shown(second, first)
            else:
                for group in pair:
                    reasons = {s.id: "no neighbour with as many pictures" for s in group.samples}
                    yield Group(group.id, [], {**group.errors, **reasons})


def _shown(group: Group, other: Group) -> Group:
    """The group's questions about the other's pictures."""
    return Group(group.id, [_with(sample, other.samples[0]) for sample in group.samples], group.errors)


def _with(sample: Sample, other: Sample) -> Sample:
    pictures = iter([ImagePart(image) for image in other.images()])
    messages = [Message(m.role, [next(pictures) if isinstance(p, ImagePart) else p for p in m.content]) for m in sample.messages]
    return replace(sample, messages=messages)
