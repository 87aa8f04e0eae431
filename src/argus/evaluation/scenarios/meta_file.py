"""Data sets as LAMM's 2D benchmark publishes them, which ChEF (arXiv 2311.02692) evaluates on: one list of items per set.

    2D_Benchmark/meta_file/<Task>_<Set>.json     [{"id": ..., "image": "<set>/<picture>", ...}, ...]
    2D_Benchmark/<set>/<picture>                 paths begin in the folder above `meta_file`

An item without an id gets its number. A set's class says what its other fields mean. What is drawn by lot - wrong options,
their order - is drawn from the item's id, so that it hangs neither on the order in which items are read nor on which of them
are; the published code draws from one generator, so its options are of the same distribution and not the same ones. `drawn:
250` asks the items whose numbers Python's `random.sample` gives for seed 0, as the paper's language performance does with
ScienceQA's 2,017.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.formats.llava import records
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.published import Published, PublishedOptions
from argus.evaluation.taxonomy import Dimension

SEED = 0  # of the items that are drawn


class MetaFileOptions(PublishedOptions):
    """The download."""

    pictures: Path | None = Field(None, description="folder that pictures' paths begin in; the benchmark's own when not given")
    drawn: int | None = Field(None, ge=1, description="ask only so many items, drawn by lot once for all; all when not given")


class MetaFile(Published):
    """Reads one set; a subclass says what an item is."""

    Options: ClassVar[type[PublishedOptions]] = MetaFileOptions
    options: MetaFileOptions
    id_name = "id"
    benchmark: ClassVar[str]

    def asked(self) -> set[int]:
        return {d.id for d in self.dimensions}

    def records(self) -> Iterator[tuple[Any, int] | DataError]:
        chosen = None
        if self.options.drawn is not None:
            count = sum(1 for _ in records(self.file))
            chosen = set(Random(SEED).sample(range(count), min(count, self.options.drawn)))
        for number, found in enumerate(records(self.file)):
            if chosen is not None and number not in chosen:
                continue
            if isinstance(found, DataError) or not isinstance(found[0], dict):
                yield found
            else:
                yield {"id": number, **found[0]}, found[1]

    def dimension(self, record: dict[str, Any], where: str) -> Dimension:
        field_of(record, "image", str, where)
        return self.dimensions[0]

    def asked_about(
        self, record: dict[str, Any], where: str, question: str, target: str, options: list[str], turn: str = "", **known: Any
    ) -> Sample:
        """A question about a record's picture."""
        metadata = {"family": self.dimensions[0].name, "domain": self.benchmark, "source": where, **known}
        message = Message("user", [ImagePart(self.root() / record["image"]), TextPart(question)])
        return Sample(f"{self.benchmark}/{record['id']}{turn}", [message], target, options, metadata)

    def root(self) -> Path:
        """The folder that pictures' paths begin in."""
        folder = self.file.parent
        return self.options.pictures or (folder.parent if folder.name == "meta_file" else folder)

    def lot(self, record: dict[str, Any]) -> Random:
        """The dice of an item."""
        return Random(f"{self.benchmark}/{record['id']}")
