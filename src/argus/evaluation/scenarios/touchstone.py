"""TouchStone's items (arXiv 2308.16890): questions with a fine-grained description of the picture and a reference answer.

    index  image  question  human_annotation  gpt4_ha_answer  category  task_name          (tab separated)

`image` is base64, or a list of such texts whose pictures are shown in order. The description H becomes metadata `description`,
the reference answer the target. Categories are the five abilities, several separated by commas; rows also count by sub-task. The
whole set has 908 items; a file with another number is said to be so, `rows: null` for a part of it. Empty fields and rows that
cannot be read are set aside with their reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import read_samples
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.scenarios.base import Group, Scenario, set_aside

# The abilities and their sub-tasks, as the paper's figure numbers them.
ABILITIES: dict[str, tuple[str, ...]] = {
    "Visual Recognition": (
        *("Attribute QA", "Species", "Celebrity", "Text", "Emotion", "Movie/TV", "Art", "Real-life image", "Landmark", "Brand"),
    ),
    "Visual Comprehension": (
        *("Reasoning QA", "Abstract art", "General problem solving", "Style appreciation", "Chart/table analysis", "Meme"),
        "Maths problem",
    ),
    "Basic Description": ("Simple", "Detailed"),
    "Multi-image Analysis": ("Product comparison", "Summary", "Comparison"),
    "Visual Storytelling": ("Stories", "Brainstorming", "Poetry", "E-mails", "Recommendations"),
}


class TouchStoneOptions(Options):
    """Options of the scenario."""

    path: Path = Field(description="the TSV file")
    rows: int | None = Field(908, ge=1, description="items that the file must have; null for a part of the set")


class TouchStone(Scenario):
    """Reads the file as a stream."""

    Options = TouchStoneOptions
    options: TouchStoneOptions

    def __init__(self, options: TouchStoneOptions) -> None:
        super().__init__(options)
        read_samples(options.path, "tsv")  # a missing file is refused before anything runs

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        errors: dict[str, str] = {}
        reading = read_samples(self.options.path, "tsv")
        stream = iter(reading)
        first = seed * samples if samples is not None else 0
        read = 0
        for row in islice(stream, first, None if samples is None else first + samples):
            read += 1
            try:
                item = _item(row)
            except DataError as error:
                set_aside(errors, error)
                continue
            yield Group(item.id, [item])
        complete = next(stream, None) is None
        for unread in reading.errors:
            set_aside(errors, unread)
        count = first + read + reading.set_aside
        if complete and self.options.rows not in (None, count):
            errors[f"{self.options.path}#rows"] = f"the file has {count} items, not {self.options.rows}; `rows: null` for a part"
        if errors:
            yield Group(f"{self.options.path}#unreadable", [], errors)


def _item(row: Sample) -> Sample:
    """A row as an item."""
    where = row.metadata["source"]
    for field in ("human_annotation", "gpt4_ha_answer", "category"):
        if not row.metadata.get(field, "").strip():
            raise DataError(f"field '{field}' is empty or missing", where=f"{where}, field '{field}'")
    if not row.images():
        raise DataError("field 'image' is empty", where=f"{where}, field 'image'")
    given = row.metadata
    metadata = {
        "family": given.get("task_name", "other"),
        "domain": "touchstone",
        "picture": _picture(row),
        "category": given["category"],
        "description": given["human_annotation"],
        "source": where,
    }
    return replace(row, target=given["gpt4_ha_answer"], metadata=metadata)


def _picture(row: Sample) -> str:
    digest = hashlib.sha256()
    for image in row.images():
        digest.update(image if isinstance(image, bytes) else str(image).encode())
    return digest.hexdigest()[:16]
