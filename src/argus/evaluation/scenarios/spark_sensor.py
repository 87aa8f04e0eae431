"""SPARK: Multi-Vision Sensor Perception and Reasoning Benchmark for Large-scale Vision-Language Models (arXiv 2408.12114).

6,248 questions about pictures of four sensors. Perception asks what is there (yes or no), reasoning what the sensor tells (one
of four letters); models that take every picture for a photograph fail at the latter. Named `spark_sensor`, because there are
other SPARKs.

    cell(sensor, perception) = mean over its four question types of their accuracies
    cell(sensor, reasoning)  = mean over its two
    ALL                      = mean over the eight cells                                (metric `spark_all`)

Families are "<sensor> <type>", branches the cells: `spark[mean thermal reasoning]` is a cell, `spark[thermal reasoning]` the same
questions pooled, which the paper does not report.

A row has id, image, sensor_type, question_type, question, question_query (options and the form of the answer included: this is
what is asked) and answer. Read from parquet with the pictures' bytes, or from JSON lines with paths. The published code puts
the text before the picture in the chat, and LLaVA's template turns that round; here the picture comes first. `hint` says in
front of the question which sensor took the picture, as in the paper's ablation; it changes nothing but the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from argus.core.errors import DataError, nearest
from argus.core.formats import field_of, parquet
from argus.core.formats.llava import records
from argus.core.formats.pictures import read_picture
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.base import Scenario
from argus.evaluation.scenarios.published import LETTERS, Download, Published, PublishedOptions
from argus.evaluation.taxonomy import Dimension

SENSORS = {"rgb": "RGB", "thermal": "thermal", "depth": "depth", "xray": "X-ray", "xr": "X-ray"}
HINTS = {"thermal": "This is a Thermal image. ", "depth": "This is a Depth image. ", "X-ray": "This is a X-Ray image. "}
# Type -> what all its names in the files hold, and how many items were published.
TYPES = {
    "existence": ("exist", 1423),
    "counting": ("count", 1202),
    "position": ("position", 817),
    "general description": ("description", 1439),
    "contextual reasoning": ("context", 647),
    "sensor reasoning": ("sens", 720),
}
REASONING = ("contextual reasoning", "sensor reasoning")
WORDS = ["yes", "no"]


def _dimensions() -> Iterator[Dimension]:
    number = 0
    for sensor in dict.fromkeys(SENSORS.values()):
        for kind in TYPES:
            number += 1
            cell = f"{sensor} {'reasoning' if kind in REASONING else 'perception'}"
            yield Dimension(number, f"{sensor} {kind}", (cell,))


class SparkSensorOptions(PublishedOptions):
    """The download, and how it is asked."""

    path: Path = Field(description="a .parquet or .jsonl file, or the folder that holds one or several")
    sensors: list[str] = Field(default_factory=list, description="RGB, thermal, depth, X-ray; all when empty")
    hint: bool = Field(False, description="say which sensor took the picture, in front of the question")


class SparkSensor(Published):
    """Reads one file after the other, row by row."""

    Options = SparkSensorOptions
    options: SparkSensorOptions
    id_name = "id"
    dimensions = tuple(_dimensions())

    def __init__(self, options: SparkSensorOptions) -> None:
        Scenario.__init__(self, options)
        path = options.path
        self.files = sorted([*path.rglob("*.parquet"), *path.rglob("*.jsonl")]) if path.is_dir() else [path]
        if not self.files or not self.files[0].is_file():
            raise DataError("there is no .parquet and no .jsonl file.", where=str(path))
        self.file = path
        self.by_name = {d.name: d for d in self.dimensions}
        self.chosen = {sensor_of(name, "option 'sensors'") for name in options.sensors} or set(SENSORS.values())

    def asked(self) -> set[int]:
        return {d.id for d in self.dimensions if d.name.partition(" ")[0] in self.chosen}

    def dimension(self, record: dict[str, Any], where: str) -> Dimension:
        sensor = sensor_of(field_of(record, "sensor_type", str, where), f"{where}, field 'sensor_type'")
        kind = kind_of(field_of(record, "question_type", str, where), f"{where}, field 'question_type'")
        return self.by_name[f"{sensor} {kind}"]

    def records(self) -> Iterator[tuple[Any, int] | DataError]:
        for path in self.files:
            self.file = path  # which the places of items and errors name
            yield from parquet.rows(path) if path.suffix == ".parquet" else records(path)

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        text = field_of(record, "question_query", str, where)
        given = field_of(record, "answer", str, f"{where}, field 'answer'").strip()
        # Copies of the data spell answers in several ways, and the metric compares exactly.
        answer = given.lower() if given.lower() in WORDS else given.upper()
        if answer not in (*LETTERS, *WORDS):
            raise DataError(f"answer '{given}' is none of A, B, C, D, yes, no", where=f"{where}, field 'answer'")
        if "image" not in record:
            raise DataError("field 'image' is missing", where=where)
        picture = read_picture(record["image"], self.file.parent, f"{where}, field 'image'")
        if self.options.hint:
            text = HINTS.get(dimension.name.partition(" ")[0], "") + text
        metadata = {
            "family": dimension.name,
            "domain": "spark",
            "branches": [*dimension.branches],
            "letter": answer,
            "source": where,
        }
        options = WORDS if answer in WORDS else list(LETTERS)
        name = str(field_of(record, "id", (int, str), where))
        return Sample(name, [Message("user", [ImagePart(picture), TextPart(text)])], answer, options, metadata)

    def check(self) -> Download:
        """Per question type, whose numbers of items are published."""
        found = super().check()
        types: Counter[str] = Counter(dict.fromkeys(TYPES, 0))
        for name, count in found.found.items():
            types[name.partition(" ")[2]] += count
        return replace(
            found, file=str(self.options.path), found=dict(types), published={kind: items for kind, (_, items) in TYPES.items()}
        )


def sensor_of(name: str, where: str) -> str:
    """A sensor by its name in the files.

    Raises:
        DataError: there is no such sensor.
    """
    key = name.strip().lower().replace("-", "").replace("_", "")
    if key not in SENSORS:
        raise DataError(f"there is no sensor '{name}'.", where=where, hint=nearest(key, SENSORS))
    return SENSORS[key]


def kind_of(name: str, where: str) -> str:
    """A question type by its name in the files.

    Raises:
        DataError: there is no such type.
    """
    found = next((kind for kind, (part, _) in TYPES.items() if part in name.lower()), None)
    if found is None:
        raise DataError(f"there is no question type '{name}'.", where=where, hint=nearest(name, TYPES))
    return found
