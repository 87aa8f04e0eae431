"""Answers from a file of predictions, one {"question_id": ..., "prediction": ...} a line, as leaderboards take and publish them.

A letter stands for the option at its place; blanks around it are dropped, a comma behind a line is no error. An id that stands
twice counts once, by its last line. A question that the file does not answer is left out with the reason. The model is not
asked. A folder holds MME's result files, one per task.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.formats.mme import MMELine, read_mme
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import PICTURES, Answer, AnsweringModel, Inferencer, Question


class StoredOptions(Options):
    """Options of the inferencer."""

    path: Path = Field(description="the file of predictions, or a folder of MME's result files")


class Stored(Inferencer):
    """Looks answers up."""

    Options = StoredOptions
    options: StoredOptions

    def __init__(self, options: StoredOptions) -> None:
        super().__init__(options)
        self.predictions = read_predictions(options.path)

    def refusal(self, sample: Sample) -> str | None:
        return None if sample.id in self.predictions else "has no stored prediction"

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(_text(self.predictions[q.sample.id], q.sample)) for q in questions]


def _text(prediction: str, sample: Sample) -> str:
    """What a prediction says: the option that a letter stands for, or the prediction itself."""
    place = ascii_uppercase.find(prediction) if len(prediction) == 1 else -1
    lettered = PICTURES not in sample.metadata and 0 <= place < len(sample.options)
    return sample.options[place] if lettered else prediction


def read_predictions(path: Path) -> dict[str, str]:
    """Question id -> prediction.

    Raises:
        DataError: the file cannot be read, or a line is not a prediction; with its line.
    """
    found: dict[str, str] = {}
    if path.is_dir():
        lines_of_mme = (line for line in read_mme(path) if isinstance(line, MMELine))
        return {line.id: line.said for line in lines_of_mme if line.said is not None}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the predictions cannot be read: {error}", where=str(path)) from None
    for number, line in enumerate(lines, start=1):
        text = line.strip().rstrip(",")
        if text in ("", "[", "]"):
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"not valid JSON at column {error.colno}: {error.msg}", where=where) from None
        name = str(field_of(record, "question_id", (str, int), where))
        found[name] = field_of(record, "prediction", str, where).strip()
    return found
