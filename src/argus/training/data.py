"""A stage's samples as a map-style dataset: item i of the stage is the same on every machine and in every process.

Because each item is a pure function of its index, a stage resumes at any step without replaying data, and N processes with
batch B / N see exactly the samples that one process with batch B sees.
"""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from argus.core.errors import DataError, RecipeError, nearest
from argus.core.sample import Sample
from argus.training.objectives.base import Item
from argus.training.options import DataOptions
from argus.world.data import choose, mixture

REDRAWS = 64  # scenes that are tried before a stage gives up
ELSEWHERE = 1 << 40  # indices that no stage counts to


class StageData(Dataset[Item]):
    """`length` items drawn from the world's mixture and from files.

    Args:
        options: domains with weights, files, picture size, turns.
        length: number of items, steps * batch_size.
        questions: whether drawings carry questions (not needed by contrastive training).

    Raises:
        RecipeError: no domain of the mixture asks questions of a named family.
    """

    def __init__(self, options: DataOptions, length: int, questions: bool = True) -> None:
        self.options, self.length = options, length
        self.count = options.questions if questions else 0
        self.world = mixture(options.world, options.domains) if options.world else []
        known = [family for domain, _ in self.world for family in domain.families + domain.more_families]
        for family in options.families:
            if known and family not in known:
                raise RecipeError(f"{' and '.join(options.world)} ask no '{family}' questions", hint=nearest(family, known))
        self.files = [sample for path in options.files for sample in _read(path)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        index = self.options.start + (index % self.options.distinct if self.options.distinct else index)
        if self.files and (not self.world or index % 2):  # files weigh as much as the whole world
            return self.files[(index // 2 if self.world else index) % len(self.files)]
        domain = choose(self.world, index)
        families = tuple(f for f in self.options.families if f in domain.families + domain.more_families)
        for attempt in range(REDRAWS):  # a scene may have nothing to ask of these families: another one stands in for it
            drawing = domain.draw("train", index + attempt * ELSEWHERE, self.options.size, self.count, families)
            if drawing.questions or not self.count:
                break
        else:
            raise DataError(
                f"{REDRAWS} scenes of {domain.name} in a row have nothing to ask of {', '.join(families) or 'any family'}",
                hint="Name other families, or options of the domain that draw fuller scenes.",
            )
        return drawing, domain


def _read(path: str) -> list[Sample]:
    from argus.core.formats import read_samples
    from argus.core.progress import console

    if not Path(path).exists():
        raise RecipeError(f"training data '{path}' does not exist")
    reading = read_samples(Path(path))
    samples = list(reading)
    if not samples:
        raise DataError("no readable sample", where=path, hint=reading.errors[0].text() if reading.errors else None)
    if reading.set_aside:
        first = reading.errors[0].text()
        console().print(f"{path}: {reading.set_aside} records set aside, the first: {first}", highlight=False, markup=False)
    return samples
