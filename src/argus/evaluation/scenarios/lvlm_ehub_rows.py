"""Rows of LVLM-eHub's sets (arXiv 2306.09265), in the forms in which they are published.

.json, .jsonl   {image_path, question, gt_answers}, the answers a text or a list; a JSON list or a record per line
                {image, text, label}           POPE
                {image_id, text_in, text_out}  object counting and identification
.txt            "relative/path word" per line: words in pictures
.csv            category,question,answer: ImageNetVC; ten pictures of the category by lot, the file's answers as candidates
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.formats.llava import records
from argus.evaluation.metrics.normalise import text_1

PICTURES, SEED = 10, 2022  # of a category, and of their choice


@dataclass(frozen=True, slots=True)
class Row:
    """An item as published."""

    pictures: tuple[Path, ...]
    question: str
    golds: tuple[str, ...]
    where: str
    options: tuple[str, ...] = ()


def key(name: str) -> str:
    """A set's name as it is compared: lower case, letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _objects(file: Path, root: Path) -> Iterator[Row | DataError]:
    """Rows of a JSON list or of lines."""
    return (_row(found, file, root) for found in records(file))


def _listed(file: Path, root: Path) -> Iterator[Row | DataError]:
    """Lines of an OCR list."""
    for number, line in enumerate(_lines(file), start=1):
        path, blank, word = line.strip().partition(" ")
        where = f"{file}:{number}"
        if blank:
            yield Row((root / path,), "", (word.strip(),), where)
        elif path:
            yield DataError("expected 'path word'", where=where)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(file)) from None


def _row(found: tuple[Any, int] | DataError, file: Path, root: Path) -> Row | DataError:
    """A row of JSON in one of the three published forms."""
    if isinstance(found, DataError):
        return found
    record, line = found
    where = f"{file}:{line}"
    names = ("image_path", "question", "gt_answers")
    if isinstance(record, dict) and "text_in" in record:
        names = ("image_id", "text_in", "text_out")
    elif isinstance(record, dict) and "label" in record:
        names = ("image", "text", "label")
    try:
        picture, text, given = (
            field_of(record, name, kind, f"{where}, field '{name}'")
            for name, kind in zip(names, ((str, int), (str, type(None)), (str, int, float, list)), strict=True)
        )
        golds = tuple(str(one) for one in (given if isinstance(given, list) else [given]))
        if not golds or not any(text_1(one) for one in golds):
            raise DataError("there is no right answer", where=f"{where}, field '{names[2]}'")
        return Row((root / str(picture),), (text or "").strip(), golds, where)
    except DataError as error:
        return error


def _commonsense(file: Path, root: Path) -> Iterator[Row | DataError]:
    """ImageNetVC: pictures of a category by lot; candidates are the file's answers, of their kind where they are mixed."""
    reader = csv.DictReader(_lines(file))
    table = [(record, reader.line_num) for record in reader]
    kinds: dict[str, dict[str, None]] = {}
    for record, _ in table:
        kinds.setdefault(_kind(file, record.get("answer") or ""), {})[(record.get("answer") or "").strip()] = None
    for record, line in table:
        where = f"{file}:{line}"
        category, question, answer = ((record.get(name) or "").strip() for name in ("category", "question", "answer"))
        if not (category and question and answer):
            yield DataError("expected category, question and answer", where=where)
            continue
        pictures = sorted(p for p in (root / category).glob("*") if p.is_file())
        if not pictures:
            yield DataError(f"there are no pictures of '{category}' in {root}", where=where)
            continue
        order = np.random.RandomState(SEED).permutation(len(pictures))[:PICTURES]
        yield Row(tuple(pictures[i] for i in order), question, (answer,), where, tuple(kinds[_kind(file, answer)]))


def _kind(file: Path, answer: str) -> str:
    """Which answers are candidates together: in the set `others` yes and no, numbers, and the rest."""
    if not key(file.stem).endswith("others"):
        return "all"
    word = text_1(answer)
    return "yes-no" if word in ("yes", "no") else "number" if word.isdigit() else "rest"


FORMS: dict[str, Callable[[Path, Path], Iterator[Row | DataError]]] = {
    ".json": _objects,
    ".jsonl": _objects,
    ".txt": _listed,
    ".csv": _commonsense,
}
