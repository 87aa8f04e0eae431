"""MME (arXiv 2306.13394): 14 tasks, questions of yes or no in pairs about a picture, from its published folders.

    <task>/images/<name>.jpg + <task>/questions_answers_YN/<name>.txt      or      <task>/<name>.jpg + <task>/<name>.txt
    a line of a .txt file: question, tab, Yes or No

Numbers come per task: `mme_pairs[existence]` is acc + acc+ in points. The options are Yes and No, for the inferencer `ppl`, as
ChEF (arXiv 2311.02692) asks; perception and cognition are branches, MME's own two.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from argus.core.errors import DataError, nearest
from argus.core.formats.mme import COGNITION, PERCEPTION
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.base import Scenario
from argus.evaluation.scenarios.published import Published, PublishedOptions
from argus.evaluation.taxonomy import Dimension

PICTURES = (".jpg", ".png", ".jpeg")
TASKS = tuple(
    Dimension(n, name, ("perception" if name in PERCEPTION else "cognition",))
    for n, name in enumerate((*PERCEPTION, *COGNITION), start=1)
)


class MMEOptions(PublishedOptions):
    """The download, and which tasks are asked."""

    only: list[str] = Field(default_factory=list, description="tasks to ask; all when empty")


class MME(Published):
    """Reads the folders of the tasks."""

    Options = MMEOptions
    options: MMEOptions
    dimensions = TASKS

    def __init__(self, options: MMEOptions) -> None:
        Scenario.__init__(self, options)  # a folder, not one item file
        self.file = options.path
        names = [d.name for d in TASKS]
        for name in options.only:
            if name not in names:
                raise DataError(f"there is no task '{name}'.", where=str(self.file), hint=nearest(name, names))
        if not any((self.file / name).is_dir() for name in names):
            raise DataError("the folder holds no task", where=str(self.file), hint=f"Expected folders such as {names[0]}.")

    def asked(self) -> set[int]:
        return {d.id for d in TASKS if not self.options.only or d.name in self.options.only}

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        question, tab, answer = record["line"].rstrip("\r\n").partition("\t")
        right = answer.strip().capitalize()
        if not tab or right not in ("Yes", "No"):
            raise DataError("expected 'question<tab>Yes' or 'question<tab>No'", where=where)
        known = {"family": dimension.name, "domain": "mme", "branches": [*dimension.branches], "source": where, "letter": right}
        id_ = f"mme/{dimension.name}/{record['picture'].stem}/{record['number']}"
        return Sample(
            id_, [Message("user", [ImagePart(record["picture"]), TextPart(question.strip())])], right, ["Yes", "No"], known
        )

    def items(self) -> Iterator[Sample | DataError]:
        for dimension in self.dimensions:
            folder = self.file / dimension.name
            if dimension.id not in self.asked() or not folder.is_dir():
                continue
            texts = folder / "questions_answers_YN"
            for file in sorted((texts if texts.is_dir() else folder).glob("*.txt")):
                yield from self._asked(file, folder / "images" if texts.is_dir() else folder, dimension)

    def _asked(self, file: Path, pictures: Path, dimension: Dimension) -> Iterator[Sample | DataError]:
        """The questions about one picture."""
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            yield DataError(f"cannot be read: {error}", where=str(file))
            return
        picture = next((p for end in PICTURES if (p := pictures / f"{file.stem}{end}").is_file()), pictures / f"{file.stem}.jpg")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield self.sample({"line": line, "number": number, "picture": picture}, dimension, f"{file}:{number}")
                except DataError as error:
                    yield error
