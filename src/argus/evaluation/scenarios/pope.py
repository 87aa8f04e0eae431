"""POPE (arXiv 2305.10355): is a thing there? From its published files, asked as ChEF's hallucination (arXiv 2311.02692).

    coco_pope_random.json, coco_pope_popular.json, coco_pope_adversarial.json
    a line: {"question_id": 1, "image": "COCO_val2014_....jpg", "text": "Is there a dog in the image?", "label": "yes"}

The options are Yes and No, for the inferencers `ppl` and {chain_of_thought: {then: ppl}}; written answers are scored by the
metric `pope` too. ChEF's recipes for popular and adversarial think first, the one for random does not. Each of the three is a
family.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.formats.llava import records
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.published import Published, PublishedOptions
from argus.evaluation.taxonomy import Dimension

Part = Literal["random", "popular", "adversarial"]


class POPEOptions(PublishedOptions):
    """The download, and which of the three parts."""

    part: Part = Field("random", description="how the absent things were chosen")
    pictures: Path | None = Field(None, description="folder of the pictures; val2014 beside the item file when not given")


class POPE(Published):
    """Reads one part."""

    Options = POPEOptions
    options: POPEOptions
    dimensions = tuple(
        Dimension(n, name, (name,), items)
        for n, (name, items) in enumerate({"random": 2910, "popular": 3000, "adversarial": 3000}.items(), start=1)
    )

    def __init__(self, options: POPEOptions) -> None:
        self.file_name = f"coco_pope_{options.part}.json"  # type: ignore[misc]
        super().__init__(options)

    def asked(self) -> set[int]:
        return {d.id for d in self.dimensions if d.name == self.options.part}

    def records(self) -> Iterator[tuple[Any, int] | DataError]:
        return records(self.file)

    def dimension(self, record: dict[str, Any], where: str) -> Dimension:
        return next(d for d in self.dimensions if d.name == self.options.part)

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        name = field_of(record, "question_id", (int, str), f"{where}, field 'question_id'")
        right = field_of(record, "label", str, f"{where}, field 'label'").strip().capitalize()
        if right not in ("Yes", "No"):
            raise DataError(f"label '{right}' is neither yes nor no", where=f"{where}, field 'label'")
        picture = (self.options.pictures or self.file.parent / "val2014") / field_of(
            record, "image", str, f"{where}, field 'image'"
        )
        known = {"family": dimension.name, "domain": "pope", "source": where, "letter": right}
        text = field_of(record, "text", str, f"{where}, field 'text'")
        return Sample(
            f"pope/{dimension.name}/{name}", [Message("user", [ImagePart(picture), TextPart(text)])], right, ["Yes", "No"], known
        )
