"""Questions of a dataset on disk, in any format that `argus.core.formats` reads.

Each record is one question: its user turns are asked, its target (or, without one, its last assistant turn) is the answer.
Records that cannot be read are counted with their reason, and so are those with the id of an earlier one, whose answer would not
be told from its, and those whose target is none of their options, which nobody could get right. Consecutive records about the
same picture form a group, so that the picture is encoded once and scores are clustered by it. Seed k > 0 skips the first
k * samples records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import Reading, read_samples
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.metrics.normalise import number_1
from argus.evaluation.scenarios.base import Group, Scenario, part, set_aside


class FileOptions(Options):
    """Options of the scenario."""

    path: Path = Field(description="the dataset")
    format: str | None = Field(None, description="messages, llava, tsv or parquet; found out from the file when not given")


class File(Scenario):
    """Reads the file as a stream."""

    Options = FileOptions
    options: FileOptions

    def __init__(self, options: FileOptions) -> None:
        super().__init__(options)
        read_samples(options.path, options.format)  # a missing file is refused before anything runs

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        reading = read_samples(self.options.path, self.options.format)
        wrong: dict[str, str] = {}
        for picture, members in groupby(part(_questions(reading), samples, seed, wrong), key=_picture):
            yield Group(picture, [replace(s, metadata={**s.metadata, "picture": picture}) for s in members])
        if reading.set_aside or wrong:
            yield Group(f"{self.options.path}#unreadable", [], _reasons(reading) | wrong)


def _questions(samples: Iterable[Sample]) -> Iterator[Sample | DataError]:
    """Records as questions; a `DataError` in place of one that cannot be asked."""
    places: dict[str, str] = {}
    for sample in map(_question, samples):
        place = str(sample.metadata["source"])
        before = places.setdefault(sample.id, place)
        if before != place:
            yield DataError(f"id '{sample.id}' stands at {before} too", where=place)
        elif sample.target is not None and sample.options and number_1(sample.target) not in map(number_1, sample.options):
            yield DataError(f"target '{sample.target}' is none of its options", where=place)
        else:
            yield sample


def _question(sample: Sample) -> Sample:
    """A record without its last answer, which becomes the target where there is none."""
    messages, target = sample.messages, sample.target
    if messages[-1].role == "assistant":
        target = messages[-1].text() if target is None else target
        messages = messages[:-1]
    metadata = {"family": str(sample.metadata.get("category", "other")), "domain": "file", **sample.metadata}
    return replace(sample, messages=messages, target=target, metadata=metadata)


def _picture(sample: Sample) -> str:
    """A name for what a sample shows; the same pictures get the same name."""
    digest = hashlib.sha256()
    for image in sample.images():
        digest.update(str(image).encode() if isinstance(image, Path) else image if isinstance(image, bytes) else image.tobytes())
    return digest.hexdigest()[:16] if sample.images() else sample.id


def _reasons(reading: Reading) -> dict[str, str]:
    """Unreadable records by their place; those beyond the kept ones are counted without a reason."""
    found: dict[str, str] = {}
    for error in reading.errors:
        set_aside(found, error)
    return found | {f"unreadable {n}": "not kept" for n in range(reading.set_aside - len(reading.errors))}
