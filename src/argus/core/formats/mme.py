"""Result files of MME's official tool (arXiv 2306.13394): a folder with one text file per task.

    existence.txt    0001.jpg <tab> Is there a bed in this image? Please answer yes or no. <tab> Yes <tab> Yes, there is.

Lines are picture, question, right answer and, in results, what the model said. Two lines that follow each other belong to one
picture; here they are put together by its name, so that shuffled files score the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from argus.core.errors import DataError, nearest

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
TASKS = {**dict.fromkeys(PERCEPTION, "perception"), **dict.fromkeys(COGNITION, "cognition")}
PER_PICTURE = 2  # questions about each picture, one to be answered yes and one no


@dataclass(frozen=True, slots=True)
class MMELine:
    """A question, its truth, and what was said to it; `said` is None where the file has questions alone."""

    task: str
    picture: str
    question: str
    truth: str
    said: str | None
    where: str

    @property
    def id(self) -> str:
        """Its name in the benchmark: task, picture and question."""
        return f"{self.task}/{self.picture}/{self.question}"


def task_files(folder: Path) -> list[Path]:
    """The files of a folder that are named after tasks, in the benchmark's order.

    Raises:
        DataError: none is, or there is no such folder.
    """
    beside = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found = [folder / f"{task}.txt" for task in TASKS if f"{task}.txt" in beside]
    if not found:
        raise DataError("no file is named after a task of MME.", where=str(folder), hint=nearest("existence.txt", beside))
    return found


def read_mme(folder: Path) -> Iterator[MMELine | DataError]:
    """Lines of all tasks; an error in place of one that cannot be read, and of pictures without two questions."""
    for path in task_files(folder):
        lines: dict[str, list[MMELine]] = {}
        try:
            texts = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            yield DataError(f"cannot be read: {error}", where=str(path))
            continue
        for number, text in enumerate(texts, start=1):
            if not text.strip():
                continue
            where, fields = f"{path}:{number}", text.split("\t")
            if len(fields) not in (3, 4) or fields[2].strip().lower() not in ("yes", "no"):
                yield DataError("expected picture, question, Yes or No, and the answer, parted by tabs", where=where)
                continue
            picture, question, truth, *said = fields
            line = MMELine(path.stem, picture, question, truth.strip().lower(), said[0] if said else None, where)
            lines.setdefault(picture, []).append(line)
        for picture, of in lines.items():
            if len(of) != PER_PICTURE:
                yield DataError(f"picture '{picture}' has {len(of)} questions, not {PER_PICTURE}", where=of[0].where)
                continue
            yield from of
