"""Reading and writing samples, streaming, in the formats that people have.

    reading = read_samples("train.jsonl")
    for sample in reading: ...
    reading.set_aside, reading.errors

A record that cannot be read is set aside with its file, line, field and reason, and counted; `strict=True` stops at it instead.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from argus.core.errors import ArgusError, DataError, UnknownNameError, nearest
from argus.core.images import load_image
from argus.core.sample import Sample

# name -> (module, file endings it writes)
FORMATS = {
    "messages": ("argus.core.formats.messages", (".jsonl",)),
    "llava": ("argus.core.formats.llava", (".json",)),
    "tsv": ("argus.core.formats.tsv", (".tsv",)),
    "parquet": ("argus.core.formats.parquet", (".parquet",)),
}
KEPT_ERRORS = 100  # the rest is only counted


@dataclass(slots=True)
class Reading:
    """Samples of a file, read as they are asked for.

    Args:
        path, format: what is read.
        strict: raise at the first bad record.
        check_images: also decode every picture.
        errors: the first `KEPT_ERRORS` problems.
        set_aside: how many records could not be read.
    """

    path: Path
    format: str
    strict: bool = False
    check_images: bool = False
    errors: list[DataError] = field(default_factory=list)
    set_aside: int = 0

    def __iter__(self) -> Iterator[Sample]:
        self.errors, self.set_aside = [], 0
        for item in import_module(FORMATS[self.format][0]).read(self.path):
            problem = item if isinstance(item, DataError) else self._images(item)
            if problem is None:
                yield item
                continue
            if self.strict:
                raise problem
            self.set_aside += 1
            if len(self.errors) < KEPT_ERRORS:
                self.errors.append(problem)

    def _images(self, sample: Sample) -> DataError | None:
        if self.check_images:
            try:
                for image in sample.images():
                    load_image(image, where=str(sample.metadata.get("source", sample.id)))
            except DataError as error:
                return error
        return None


def read_samples(path: str | Path, format: str | None = None, *, strict: bool = False, check_images: bool = False) -> Reading:
    """Samples of a file.

    Args:
        path: the file.
        format: one of `FORMATS`; found out from the file when not given.
        strict: raise at the first bad record instead of setting it aside.
        check_images: also decode every picture.

    Raises:
        DataError: no such file, or nothing in it says what format it has.
        UnknownNameError: an unknown format.
    """
    path = Path(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("there is no such file.", where=str(path), hint=nearest(path.name, beside))
    name = _known(format) if format else detect(path)
    return Reading(path, name, strict, check_images)


def write_samples(samples: Iterable[Sample], path: str | Path, format: str | None = None) -> int:
    """Write samples; the file appears whole, at the end.

    Args:
        format: one of `FORMATS`; by the file's ending when not given.

    Returns:
        How many were written.

    Raises:
        ArgusError: the disk is full, or the format cannot hold a sample.
    """
    path = Path(path)
    name = written_as(path, format)
    part = path.with_name(path.name + ".part")
    count = 0

    def counted() -> Iterator[Sample]:
        nonlocal count
        for sample in samples:
            yield sample
            count += 1

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        import_module(FORMATS[name][0]).write(counted(), part, path)
        os.replace(part, path)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else f"cannot write: {error.strerror or error}"
        raise ArgusError(f"{reason} after {count} samples; what is complete stands in {part.name}", where=str(path)) from None
    return count


def written_as(path: Path, format: str | None = None) -> str:
    """The format in which a file is written: the one named, or the one of its ending.

    Raises:
        DataError: the ending names none.
        UnknownNameError: an unknown format.
    """
    if format:
        return _known(format)
    for name, (_, ends) in FORMATS.items():
        if path.suffix in ends:
            return name
    endings = ", ".join(end for _, ends in FORMATS.values() for end in ends)
    raise DataError(f"the ending '{path.suffix}' names no format.", where=str(path), hint=f"Endings: {endings}.")


def detect(path: Path) -> str:
    """The format of a file, by its ending and its first record.

    Raises:
        DataError: the file is empty or nothing says what it is.
    """
    if path.suffix in (".tsv", ".parquet"):
        return path.suffix[1:]
    with path.open("rb") as file:
        head = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise DataError("the file is empty", where=str(path))
    if b'"conversations"' in head:
        return "llava"
    if b'"messages"' in head or b'"prompt"' in head:
        return "messages"
    if path.suffix in (".json", ".jsonl"):
        return "llava" if path.suffix == ".json" else "messages"
    raise DataError("nothing says what format this is.", where=str(path), hint=f"Name one: {', '.join(FORMATS)}.")


def _known(name: str) -> str:
    if name not in FORMATS:
        raise UnknownNameError(f"there is no format '{name}'.", hint=nearest(name, FORMATS))
    return name


@dataclass(slots=True)
class Summary:
    """What is in a file.

    Args:
        format: its format.
        good, bad: records that can and cannot be read (pictures included).
        errors: the first problems.
        roles: turns per role.
        pictures: pictures in all.
        longest_answer: characters of the longest assistant turn or target.
    """

    format: str
    good: int
    bad: int
    errors: list[str]
    roles: dict[str, int]
    pictures: int
    longest_answer: int


def check(path: str | Path, format: str | None = None, *, strict: bool = False) -> Summary:
    """Read a whole file, pictures included, and say what is in it and what is wrong with it; `strict` stops at the first."""
    reading = read_samples(path, format, strict=strict, check_images=True)
    roles: Counter[str] = Counter()
    good = pictures = longest = 0
    for sample in reading:
        good += 1
        roles.update(m.role for m in sample.messages)
        pictures += len(sample.images())
        answers = [m.text() for m in sample.messages if m.role == "assistant"] + [sample.target or ""]
        longest = max(longest, *map(len, answers))
    texts = [e.text() for e in reading.errors]
    return Summary(reading.format, good, reading.set_aside, texts, dict(roles), pictures, longest)


def field_of(record: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of a record, of a certain type.

    Raises:
        DataError: the record is no mapping, the field is missing or of another type.
    """
    if not isinstance(record, dict):
        raise DataError(f"a record is an object, not {type(record).__name__}", where=where)
    if name not in record:
        raise DataError(f"field '{name}' is missing.", where=where, hint=nearest(name, map(str, record)))
    value = record[name]
    if not isinstance(value, kind):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise DataError(f"field '{name}' must be {names}, not {type(value).__name__}", where=where)
    return value


def answers_of(record: dict[str, Any], where: str) -> tuple[str | None, list[str]]:
    """The target and the options of a record; None and none where it has no such fields, or null in them.

    Raises:
        DataError: they are no texts.
    """
    target, options = record.get("target"), record.get("options")
    if target is not None and not isinstance(target, str):
        raise DataError(f"a target is a text, not {type(target).__name__}", where=f"{where}, field 'target'")
    if options is not None and not (isinstance(options, list) and all(isinstance(option, str) for option in options)):
        raise DataError("options are a list of texts", where=f"{where}, field 'options'")
    return target, options or []


def id_of(record: dict[str, Any], path: Path, number: int) -> str:
    """A record's id; its file and number where it has none."""
    given = record.get("id")
    return f"{path.name}:{number}" if given is None else str(given)
