"""VLMEvalKit's TSV: one question a row, pictures as base64.

    index  image  question  hint  A  B  C  D  answer  category  ...

`image` is base64, a list of base64 texts, or the index of a row that holds the picture. `answer` is the letter of an option, or
the answer itself where there are no options. Held: one user turn with pictures first, its options and target; every other
column is metadata (as text). Dialogues, system turns and boxes are refused when written.
"""

from __future__ import annotations

import ast
import base64
import csv
import string
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from argus.core.errors import DataError
from argus.core.formats.pictures import from_base64, picture_bytes
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart

LETTERS = string.ascii_uppercase
COLUMNS = 8  # of options that a written table has at least, as its first row need not have the most
OWN = {"index", "image", "question", "answer", *LETTERS}
csv.field_size_limit(1 << 30)  # a picture is one field


def read(path: Path) -> Iterator[Sample | DataError]:
    """Samples of a file; a `DataError` in place of one that cannot be read."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", strict=False)
        pictures: dict[str, str] = {}
        try:
            missing = {"index", "question"} - set(rows.fieldnames or [])
            if missing:
                yield DataError(f"the header has no column {', '.join(sorted(missing))}", where=f"{path}:1")
                return
            for row in rows:
                where = f"{path}:{rows.line_num}"
                try:
                    yield _sample(row, pictures, where)
                except DataError as error:
                    yield error
        except UnicodeDecodeError:
            yield DataError("not UTF-8 text from here on", where=f"{path}, behind line {rows.line_num}")
        except csv.Error as error:
            yield DataError(f"this is not a table any more: {error}", where=f"{path}, behind line {rows.line_num}")


def _sample(row: dict[str | None, str], pictures: dict[str, str], where: str) -> Sample:
    if None in row:
        raise DataError("the row has more fields than the header", where=where)
    if any(value is None for value in row.values()):
        raise DataError("the row has fewer fields than the header", where=where)
    index = row["index"]
    image = row.get("image", "")
    if len(image) <= 64 and image in pictures:
        image = pictures[image]  # refers to a row before
    elif image:
        pictures[index] = image
    parts: list[Part] = [ImagePart(from_base64(text, f"{where}, field 'image'")) for text in _list(image, where)]
    options = {letter: row[letter] for letter in LETTERS if row.get(letter)}
    answer = row.get("answer") or None
    if answer and options:
        if answer not in options:
            raise DataError(f"answer '{answer}' is none of {', '.join(options)}", where=f"{where}, field 'answer'")
        answer = options[answer]
    metadata = {str(k): v for k, v in row.items() if k not in OWN and v}
    messages = [Message("user", [*parts, TextPart(row["question"])])]
    return Sample(index, messages, answer, list(options.values()), {**metadata, "source": where})


def _list(image: str, where: str) -> list[str]:
    if not image.startswith("["):
        return [image] if image else []
    try:
        return [str(text) for text in ast.literal_eval(image)]
    except (ValueError, SyntaxError):
        raise DataError("the list of pictures cannot be read", where=f"{where}, field 'image'") from None


def write(samples: Iterable[Sample], part: Path, path: Path) -> None:
    """Write samples; the columns are those of the first one.

    Raises:
        DataError: a sample that a row cannot hold.
    """
    stream = iter(samples)
    first = next(stream, None)
    extra = [k for k in (first.metadata if first else {}) if k not in OWN and k != "source"]
    with part.open("w", encoding="utf-8", newline="") as file:
        letters = list(LETTERS[: max(COLUMNS, len(first.options) if first else 0)])
        out = csv.DictWriter(file, ["index", "image", "question", *letters, "answer", *extra], delimiter="\t")
        out.writeheader()
        for one in chain([first] if first else [], stream):
            out.writerow(_row(one, letters, extra))


def _row(one: Sample, letters: list[str], extra: list[str]) -> dict[str, str]:
    message = one.messages[0]
    texts = [p for p in message.content if isinstance(p, TextPart)]
    if len(one.messages) != 1 or message.role != "user" or len(texts) != 1 or message.content[-1] is not texts[0]:
        raise DataError("a row holds one user turn: pictures, then one text", where=f"sample '{one.id}'")
    if any(not isinstance(p, TextPart | ImagePart) for p in message.content):
        raise DataError("a row cannot hold boxes, points or videos", where=f"sample '{one.id}'")
    if len(one.options) > len(letters):
        raise DataError(f"{len(one.options)} options, but the header has {len(letters)}", where=f"sample '{one.id}'")
    coded = [base64.b64encode(picture_bytes(i)).decode() for i in one.images()]
    answer = one.target or ""
    if one.options and one.target is not None:
        if one.target not in one.options:
            raise DataError(f"the target '{one.target}' is none of its options", where=f"sample '{one.id}'")
        answer = letters[one.options.index(one.target)]
    row = {"index": one.id, "image": coded[0] if len(coded) == 1 else str(coded) if coded else "", "answer": answer}
    row["question"] = texts[0].text
    row.update(dict(zip(letters, one.options, strict=False)))
    row.update({k: str(one.metadata.get(k, "")) for k in extra})
    return row
