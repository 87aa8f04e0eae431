"""MMDU's dialogues about several pictures (arXiv 2406.11833), one question per turn.

    benchmark.json    {"id": {"image": [path, ...], "conversations": [{"from": "user", "value": "<ImageHere> ..."},
                                                                      {"from": "assistant", "value": "..."}, ...]}, ...} or a list
    MMDU.tsv          index  image (list of base64)  question (list of turns)  answer (list of references)

Each `<ImageHere>` stands where the next picture of the list is shown. A group is a dialogue; its questions are its turns, each
with the turns and reference answers before it, and metadata `pictures` holds all pictures of the dialogue, for the judge. Ask
with the inferencer `dialogue`. Results are also given by the number of pictures and by the turn.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of, read_samples
from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.scenarios.base import Group, Scenario, set_aside

MARKER = "<ImageHere>"
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class MMDUOptions(Options):
    """Options of the scenario."""

    path: Path = Field(description="benchmark.json or MMDU.tsv")


class MMDU(Scenario):
    """Reads the dialogues."""

    Options = MMDUOptions
    options: MMDUOptions

    def __init__(self, options: MMDUOptions) -> None:
        super().__init__(options)
        read_samples(options.path, "tsv")  # a missing file is refused before anything runs

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        skipped = seed * samples if samples is not None else 0
        left = samples
        errors: dict[str, str] = {}
        read = _tsv if self.options.path.suffix == ".tsv" else _json
        for found in read(self.options.path):
            if isinstance(found, DataError):
                set_aside(errors, found)
                continue
            if skipped > 0:
                skipped -= len(found.samples)
                continue
            if left is not None and left <= 0:
                break
            turns = found.samples[:left]
            left = None if left is None else left - len(turns)
            yield Group(found.id, turns)
        if errors:
            yield Group(f"{self.options.path}#unreadable", [], errors)


def dialogue(
    id_: str, turns: Sequence[tuple[str, str]], pictures: Sequence[Path | bytes | Image], where: str, **metadata: Any
) -> Group:
    """A dialogue as one question per turn; turns share their messages, so nothing is copied.

    Args:
        id_: its name.
        turns: (question with markers, reference answer).
        pictures: shown in this order where the markers stand.
        where: what to name in an error.
        metadata: `families`, the kind of each turn; what else each turn's metadata holds.

    Raises:
        DataError: more markers than pictures, or fewer.
    """
    marked = sum(question.count(MARKER) for question, _ in turns)
    if marked != len(pictures):
        raise DataError(f"{len(pictures)} pictures, but {marked} {MARKER} markers", where=where)
    families = metadata.pop("families", ["other"] * len(turns))
    left = iter(pictures)
    messages: list[Message] = []
    samples = []
    for number, (question, reference) in enumerate(turns, start=1):
        parts: list[Part] = []
        for place, text in enumerate(question.split(MARKER)):
            parts += [ImagePart(next(left))] if place else []
            parts += [TextPart(text)] if text else []
        messages.append(Message("user", parts))
        low = (number - 1) // 5 * 5
        known = {
            "family": families[number - 1],
            "domain": "mmdu",
            "picture": id_,
            "pictures": list(pictures),
            "branches": [f"turns {low + 1}-{low + 5}", f"{len(pictures)} images"],
        }
        samples.append(Sample(f"{id_}/{number}", list(messages), reference, [], {**known, **metadata}))
        messages.append(Message("assistant", [TextPart(reference)]))
    return Group(id_, samples)


def _json(path: Path) -> Iterator[Group | DataError]:
    for id_, record, line in entries(path):
        if isinstance(record, DataError):
            yield record
            continue
        where = f"{path}:{line}"
        try:
            yield _dialogue(id_, record, path, where)
        except DataError as error:
            yield error


def _dialogue(id_: str, record: Any, path: Path, where: str) -> Group:
    """A record of the JSON file."""
    images = field_of(record, "image", list, where)
    given = field_of(record, "conversations", list, where)
    said = []
    for number, turn in enumerate(given):
        place = f"{where}, field 'conversations.{number}'"
        role = ROLES.get(field_of(turn, "from", str, place))
        if role != ("user", "assistant")[number % 2]:
            raise DataError("user and assistant do not take turns", where=place)
        said.append(field_of(turn, "value", str, place))
    if not said or len(said) % 2:
        raise DataError("the dialogue does not end with the assistant", where=f"{where}, field 'conversations'")
    for number, name in enumerate(images):
        if not isinstance(name, str):
            raise DataError(f"a picture is a path, not {type(name).__name__}", where=f"{where}, field 'image.{number}'")
    pictures = [path.parent / name for name in images]
    turns = list(zip(said[::2], said[1::2], strict=True))
    return dialogue(id_, turns, pictures, f"{where}, field 'image'", source=where)


def entries(path: Path) -> Iterator[tuple[str, Any, int]]:
    """(name, record, line) of each entry of an object or a list; a `DataError` where the file breaks off."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        yield "", DataError(f"cannot be read: {error}", where=str(path)), 0
        return
    decoder = json.JSONDecoder()
    keyed = text.lstrip().startswith("{")
    at, number = _behind(text, 0), 0
    try:
        while text[at : at + 1] not in ("]", "}"):  # at the end of a torn file this is "", and decoding fails
            line, name = text.count("\n", 0, at) + 1, str(number)
            if keyed:
                name, at = decoder.raw_decode(text, at)
                at = _behind(text, at)
            record, at = decoder.raw_decode(text, at)
            if not keyed and isinstance(record, dict):
                name = str(record.get("id", name))
            yield name, record, line
            at, number = _behind(text, at), number + 1
    except json.JSONDecodeError as error:
        torn = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        reason = "the file is torn: it ends without a closing bracket" if torn else f"not valid JSON: {error.msg}"
        yield "", DataError(reason, where=f"{path}:{error.lineno}"), error.lineno


def _behind(text: str, at: int) -> int:
    """The place behind blanks and what opens or parts entries."""
    found = (re.compile(r"\s*[\[{]?\s*") if at == 0 else re.compile(r"[\s,:]*")).match(text, at)
    return found.end() if found else at


def _tsv(path: Path) -> Iterator[Group | DataError]:
    reading = read_samples(path, "tsv")
    for row in reading:
        where = row.metadata["source"]
        try:
            questions, answers = (
                _texts(text, f"{where}, field '{field}'")
                for field, text in (("question", row.messages[0].text()), ("answer", row.target or ""))
            )
            if len(questions) != len(answers):
                raise DataError(f"{len(questions)} turns, but {len(answers)} answers", where=f"{where}, field 'answer'")
            turns = list(zip(questions, answers, strict=True))
            yield dialogue(row.id, turns, row.images(), f"{where}, field 'image'", source=where)
        except DataError as error:
            yield error
    yield from reading.errors


def _texts(text: str, where: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise DataError("this is no list of texts", where=where)
    return found
