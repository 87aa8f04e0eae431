"""CV-Bench, the vision-centric benchmark of Cambrian-1 (arXiv 2406.16860), as OLA-VLM (arXiv 2412.09585) asks it.

2,638 questions with two to six options on pictures of ADE20K, COCO and Omni3D: how many there are and how two things lie (2D),
which is nearer to the camera and which to another thing (3D). The published `prompt` holds question and options, and is asked as
it stands with a request for the option in brackets behind it; metric `cv_bench` reads the answers and has the published averages.

Reads test.jsonl, a record {filename, prompt, answer "(A)", task, source} per line with pictures beside it, or the published
parquet files test_2d.parquet and test_3d.parquet, which hold the same fields and the pictures. A record's name is its file's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of, parquet
from argus.core.formats.llava import records
from argus.core.formats.pictures import read_picture
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.published import Published, PublishedOptions
from argus.evaluation.taxonomy import Dimension

REQUEST = "Answer with the letter of the right option in brackets."
OPTION = re.compile(r"\([A-Z]\)")
TASKS = {"Count": ("2D", 788), "Relation": ("2D", 650), "Depth": ("3D", 600), "Distance": ("3D", 600)}
CV_BENCH = tuple(Dimension(n, name, (part,), items) for n, (name, (part, items)) in enumerate(TASKS.items(), start=1))


class CVBenchOptions(PublishedOptions):
    """The download, and where its pictures are."""

    images: Path | None = Field(None, description="folder that `filename` starts from; the item file's when not given")


class CVBench(Published):
    """Reads test.jsonl, or both parquet files."""

    Options = CVBenchOptions
    options: CVBenchOptions
    file_name = "test.jsonl"
    id_name = "filename"
    dimensions = CV_BENCH

    def __init__(self, options: CVBenchOptions) -> None:
        parquet = options.path / "test_2d.parquet"
        whole = options.path.is_dir() and not (options.path / self.file_name).exists() and parquet.exists()
        super().__init__(options.model_copy(update={"path": parquet}) if whole else options)
        self.files = [self.file, options.path / "test_3d.parquet"] if whole else [self.file]

    def records(self) -> Iterator[tuple[Any, int] | DataError]:
        for path in self.files:
            self.file = path  # which the places of items and errors name
            yield from parquet.rows(path) if path.suffix == ".parquet" else records(path)

    def asked(self) -> set[int]:
        return set(self.known)

    def dimension(self, record: dict[str, Any], where: str) -> Dimension:
        place = f"{where}, field 'task'"
        task = field_of(record, "task", str, place)
        found = next((one for one in CV_BENCH if one.name == task), None)
        if found is None:
            raise DataError(f"'{task}' is none of {', '.join(TASKS)}", where=place)
        return found

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        prompt, answer, source, name = (
            field_of(record, key, str, f"{where}, field '{key}'") for key in ("prompt", "answer", "source", "filename")
        )
        options = sorted(set(OPTION.findall(prompt)))
        if answer not in options:
            raise DataError(
                f"answer '{answer}' is no option of the prompt: {', '.join(options)}", where=f"{where}, field 'answer'"
            )
        given = record.get("image")
        folder = self.options.images or self.file.parent
        picture = read_picture(name if given is None else given, folder, f"{where}, field 'image'")
        metadata = {
            "family": dimension.name,
            "domain": "cv-bench",
            "branches": [*dimension.branches],
            "letter": answer.strip("()"),
            "from": source,
            "source": where,
        }
        asked = Message("user", [ImagePart(picture), TextPart(f"{prompt}\n{REQUEST}")])
        return Sample(name, [asked], answer, options, metadata)
