"""What published benchmarks share: an item file on disk, pictures beside it, items set aside with file, line, field and reason.

A benchmark's class says what an item is; this one reads the file as a stream, refuses an id that stands twice (the first is
kept), decodes videos when they are asked about, and groups consecutive items about the same pictures so that these are encoded
once.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from argus.core.errors import ArgusError, DataError, nearest
from argus.core.formats import KEPT_ERRORS, field_of
from argus.core.formats.listed import listed
from argus.core.images import load_image
from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Part, Sample, VideoPart
from argus.core.videos import read_frames
from argus.evaluation.inferencers.base import PICTURES
from argus.evaluation.scenarios.base import Group, Scenario, part
from argus.evaluation.taxonomy import Dimension

LETTERS = "ABCD"


class PublishedOptions(Options):
    """Where the download is."""

    path: Path = Field(description="the item file, or the folder that holds it")


@dataclass(slots=True)
class Download:
    """What is in a download.

    Args:
        file: the item file.
        found: dimension -> items that can be asked.
        published: dimension -> items that the paper has; None where it gives no number.
        letters: right letter -> items: what always giving one letter is worth.
        bad: items that cannot be asked.
        errors: the first problems.
    """

    file: str
    found: dict[str, int]
    published: dict[str, int | None]
    letters: dict[str, int]
    bad: int = 0
    errors: list[str] = field(default_factory=list)


class Published(Scenario):
    """A benchmark's items from its published file."""

    Options: ClassVar[type[PublishedOptions]]
    options: PublishedOptions
    file_name: ClassVar[str]
    list_name: ClassVar[str] = "questions"
    id_name: ClassVar[str] = "question_id"
    dimensions: ClassVar[tuple[Dimension, ...]]

    def __init__(self, options: PublishedOptions) -> None:
        super().__init__(options)
        path = options.path / self.file_name if options.path.is_dir() else options.path
        if not path.is_file():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise DataError("there is no such item file.", where=str(path), hint=nearest(path.name, beside))
        self.file = path
        self.known = {d.id: d for d in self.dimensions}

    @abstractmethod
    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample | None:
        """The item of a record; None where the options leave it out.

        Raises:
            DataError: a field is missing or wrong.
        """

    def samples(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sequence[Sample]:
        """All questions of a record: as a rule its item."""
        sample = self.sample(record, dimension, where)
        return [] if sample is None else [sample]

    @abstractmethod
    def asked(self) -> set[int]:
        """Dimensions that the options choose."""

    def records(self) -> Iterator[tuple[Any, int] | DataError]:
        """Every record of the file with its line."""
        return listed(self.file, self.list_name)

    def dimension(self, record: dict[str, Any], where: str) -> Dimension:
        """The dimension of a record.

        Raises:
            DataError: there is no such dimension.
        """
        number = field_of(record, "question_type_id", int, where)
        if number not in self.known:
            raise DataError(f"there is no dimension {number}", where=f"{where}, field 'question_type_id'")
        return self.known[number]

    def items(self) -> Iterator[Sample | DataError]:
        """Every chosen item, in the file's order; a `DataError` in place of one that cannot be read."""
        seen: dict[str, str] = {}
        for found in self.records():
            if isinstance(found, DataError):
                yield found
                continue
            record, line = found
            where = f"{self.file}:{line}"
            try:
                dimension = self.dimension(record, where)
                if dimension.id not in self.asked():
                    continue
                for sample in self.samples(record, dimension, where):
                    if sample.id in seen:
                        place = f"{where}, field '{self.id_name}'"
                        raise DataError(f"'{sample.id}' stands at {seen[sample.id]} too", where=place)
                    seen[sample.id] = where
                    yield sample
            except DataError as error:
                yield error

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        errors: dict[str, str] = {}
        for picture, members in groupby(part(self.items(), samples, seed, errors), key=_picture):
            group = Group(picture, [])
            for sample in members:
                try:
                    group.samples.append(self.shown(replace(sample, metadata={**sample.metadata, "picture": picture})))
                except ArgusError as error:
                    group.errors[sample.id] = f"{type(error).__name__}: {error.message}"
            yield group
        if errors:
            yield Group(f"{self.file}#unreadable", [], errors)

    def shown(self, sample: Sample) -> Sample:
        """A sample with its videos as frames.

        Raises:
            UnsupportedError: PyAV is not installed.
            DataError: a video cannot be read.
        """
        messages = [Message(m.role, [p for part in m.content for p in self._frames(part, sample)]) for m in sample.messages]
        return replace(sample, messages=messages)

    def _frames(self, part: Part, sample: Sample) -> Sequence[Part]:
        if isinstance(part, VideoPart) and isinstance(part.video, Path):
            return [ImagePart(frame) for frame in read_frames(part.video, **sample.metadata["frames"])]
        return [part]

    def check(self) -> Download:
        """Read everything, pictures and videos included, and say what is wrong with it."""
        found: Counter[str] = Counter()
        letters: Counter[str] = Counter()
        published = {d.name: d.items for d in self.dimensions if d.id in self.asked()}
        problems: list[str] = []
        bad = 0
        for item in self.items():
            try:
                if isinstance(item, DataError):
                    raise item
                source = item.metadata["source"]
                for image in [*self.shown(item).images(), *item.metadata.get(PICTURES, [])]:
                    load_image(image, where=f"{source}, field 'data_id'")
                found[item.metadata["family"]] += 1
                letters.update([item.metadata["letter"]] if "letter" in item.metadata else [])
            except ArgusError as error:
                bad += 1
                if len(problems) < KEPT_ERRORS:
                    place = "" if isinstance(item, DataError) or "field" in error.text() else f"{item.metadata['source']}: "
                    problems.append(f"{place}{error.text()}")
        return Download(str(self.file), {n: found[n] for n in published}, published, dict(sorted(letters.items())), bad, problems)


def choice(record: dict[str, Any], where: str) -> tuple[list[str], str]:
    """The four options of a record and the right letter; blanks around a letter, as some published ones have, are dropped.

    Raises:
        DataError: an option is missing, or the answer is no letter.
    """
    options = [
        str(field_of(record, f"choice_{x.lower()}", (str, int, float), f"{where}, field 'choice_{x.lower()}'")) for x in LETTERS
    ]
    letter = field_of(record, "answer", str, f"{where}, field 'answer'").strip()
    if len(letter) != 1 or letter not in LETTERS:
        raise DataError(f"answer '{letter}' is none of {', '.join(LETTERS)}", where=f"{where}, field 'answer'")
    return options, letter


def picture_paths(record: dict[str, Any], root: Path, where: str) -> list[Path]:
    """The files that `data_id` names.

    Raises:
        DataError: it is missing or no name.
    """
    place = f"{where}, field 'data_id'"
    given = field_of(record, "data_id", (str, list), place)
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise DataError("expected the name of a file, or a list of names", where=place)
    return [root / name for name in names]


def _picture(sample: Sample) -> str:
    """A name for what a sample shows."""
    parts = [p for m in sample.messages for p in m.content]
    names = [str(p.image) for p in parts if isinstance(p, ImagePart)] + [str(p.video) for p in parts if isinstance(p, VideoPart)]
    whole = "|".join([*names, *map(str, sample.metadata.get("frames", {}).values())])
    return hashlib.sha256(whole.encode()).hexdigest()[:16] if names else sample.id
