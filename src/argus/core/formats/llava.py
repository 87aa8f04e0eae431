"""LLaVA's JSON: a list (or lines) of conversations.

    [{"id": "1", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nWhich colour?"},
                                                     {"from": "gpt", "value": "red"}]}, ...]

`image` is a path or a list of paths; `<ImageHere>` is a marker, too. The list is read as a stream: a file that is torn gives
every complete record, then an error with its line. Boxes and points are written as text, as LLaVA's data has them; adjacent
texts of a turn become one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from argus.core.errors import DataError
from argus.core.formats import answers_of, field_of, id_of
from argus.core.formats.messages import parse
from argus.core.formats.pictures import MARKER, read_picture, split_markers, store_picture
from argus.core.sample import ImagePart, Message, Sample

FROM = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TO = {"user": "human", "assistant": "gpt", "system": "system"}
MMDU_MARKER = "<ImageHere>"  # what MMDU-45k (arXiv 2406.11833) writes, which is else of this form
OWN = ("id", "image", "images", "conversations", "target", "options")
CHUNK = 1 << 16
BROKEN = re.compile("[\udc80-\udcff]")


def read(path: Path) -> Iterator[Sample | DataError]:
    """Samples of a file; a `DataError` in place of one that cannot be read."""
    for number, found in enumerate(records(path), start=1):
        if isinstance(found, DataError):
            yield found
            continue
        record, line = found
        where = f"{path}:{line}"
        try:
            yield _sample(record, path, number, where)
        except DataError as error:
            yield error


def records(path: Path) -> Iterator[tuple[Any, int] | DataError]:
    """Records of a JSON list or of JSON lines, each with the line it begins on."""
    with path.open("rb") as file:
        head = file.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        yield from _list(path)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield parse(line, f"{path}:{number}", first=number == 1), number
                except DataError as error:
                    yield error


def _list(path: Path) -> Iterator[tuple[Any, int] | DataError]:
    """Records of a JSON list, decoded one by one from a growing buffer."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        text, line, ended = "", 1, False

        def skip(signs: str) -> None:
            nonlocal text, line
            rest = text.lstrip(signs)
            line += text.count("\n", 0, len(text) - len(rest))
            text = rest

        text = file.read(CHUNK)
        skip(" \t\r\n[")
        while True:
            skip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                record, end = decoder.raw_decode(text)
            except json.JSONDecodeError as error:
                # Incomplete so far, or wrong? More text decides; at the end of the file it is torn.
                more = "" if ended else file.read(max(CHUNK, len(text)))
                ended = not more
                if ended:
                    # An error near the end of what there is means that the record goes on beyond it.
                    at = line + text.count("\n", 0, error.pos)
                    torn = not text.strip() or error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip()) - 1
                    reason = (
                        "the file is torn: it ends inside a record or without ']'" if torn else f"not valid JSON: {error.msg}"
                    )
                    yield DataError(reason, where=f"{path}:{at}")
                    return
                text += more
                continue
            # A byte that is no UTF-8 stands in the text as half of a pair, which JSON's own escapes never leave in it.
            broken = BROKEN.search(text, 0, end)
            yield DataError("not UTF-8 text", where=f"{path}:{line}") if broken else (record, line)
            line += text.count("\n", 0, end)
            text = text[end:]
            if not text.strip() and not ended:
                text += file.read(CHUNK)


def _sample(record: Any, path: Path, number: int, where: str) -> Sample:
    turns = field_of(record, "conversations", list, where)
    given = record.get("images") or record.get("image") or []
    given = given if isinstance(given, list) else [given]
    pictures = [read_picture(value, path.parent, f"{where}, field 'image'") for value in given]
    count = len(pictures)
    messages = []
    for index, turn in enumerate(turns):
        place = f"{where}, field 'conversations.{index}'"
        who = field_of(turn, "from", str, place)
        if who not in FROM:
            raise DataError(f"'from' is '{who}', none of {', '.join(FROM)}", where=place)
        parts = split_markers(field_of(turn, "value", str, place).replace(MMDU_MARKER, MARKER), pictures, place)
        messages.append(Message(FROM[who], parts))  # type: ignore[arg-type]
    if pictures:
        shown = count - len(pictures)
        raise DataError(f"{count} pictures, but {shown} {MARKER} markers", where=f"{where}, field 'image'")
    if not messages:
        raise DataError("there is no turn", where=f"{where}, field 'conversations'")
    target, options = answers_of(record, where)
    return Sample(
        id_of(record, path, number),
        messages,
        target=target,
        options=options,
        metadata={**{k: v for k, v in record.items() if k not in OWN}, "source": where},
    )


def write(samples: Iterable[Sample], part: Path, path: Path) -> None:
    """Write samples as a JSON list, one record a line."""
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for index, one in enumerate(samples):
            images = [store_picture(image, path, f"{one.id}_{i}") for i, image in enumerate(one.images())]
            record: dict[str, Any] = {"id": one.id}
            if images:
                record["image"] = images if len(images) > 1 else images[0]
            record["conversations"] = [{"from": TO[m.role], "value": _value(m)} for m in one.messages]
            if one.target is not None:
                record["target"] = one.target
            if one.options:
                record["options"] = one.options
            record.update({k: v for k, v in one.metadata.items() if k != "source" and k not in OWN})
            file.write((",\n" if index else "\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n")


def _value(message: Message) -> str:
    chat = Sample("", [message]).chat()[0]["content"]
    texts = iter(part.get("text", "") for part in chat)
    return "".join(MARKER if isinstance(p, ImagePart) else t for p, t in zip(message.content, texts, strict=True))
