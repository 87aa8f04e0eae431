"""Records of a list that stands under a key of one JSON object, as benchmarks publish their items.

{"questions": [{...}, {...}, ...], "question_type": {...}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from argus.core.errors import DataError, nearest

BLANK = re.compile(r"[ \t\r\n]*")


def listed(path: Path, key: str) -> Iterator[tuple[Any, int] | DataError]:
    """Each record of the list with the line it begins on.

    A file that is torn gives every complete record, then an error with its line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        yield DataError(f"not UTF-8 text at byte {error.start}", where=str(path))
        return
    except OSError as error:
        yield DataError(f"cannot be read: {error.strerror or error}", where=str(path))
        return
    decoder = json.JSONDecoder()
    line, counted = 1, 0

    def place(at: int) -> str:
        return f"{path}:{line + text.count(chr(10), counted, at)}"

    at = _skip(text, 0)
    if not text.startswith("{", at):
        yield DataError(f"expected an object with the list '{key}'", where=place(at))
        return
    names = []
    at = _skip(text, at + 1)
    try:
        while not text.startswith("}", at):
            name, at = decoder.raw_decode(text, at)
            names.append(str(name))
            at = _skip(text, at)
            if not text.startswith(":", at):
                raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
            at = _skip(text, at + 1)
            if name == key and text.startswith("[", at):
                at = _skip(text, at + 1)
                while not text.startswith("]", at):
                    line, counted = line + text.count("\n", counted, at), at
                    record, at = decoder.raw_decode(text, at)
                    yield record, line
                    at = _comma(text, at, "]")
                return
            _, at = decoder.raw_decode(text, at)
            at = _comma(text, at, "}")
    except json.JSONDecodeError as error:
        torn = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        reason = "the file is torn: it ends inside a record" if torn else f"not valid JSON: {error.msg}"
        yield DataError(reason, where=place(error.pos))
        return
    yield DataError(f"there is no list '{key}'.", where=str(path), hint=nearest(key, names))


def _skip(text: str, at: int) -> int:
    found = BLANK.match(text, at)
    return found.end() if found else at


def _comma(text: str, at: int, end: str) -> int:
    """Behind the comma that follows a value, or at the end of the list or object."""
    at = _skip(text, at)
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(end, at):
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    return at
