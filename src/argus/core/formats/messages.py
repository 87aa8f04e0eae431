"""Messages and pictures as JSON lines, as TRL and ms-swift read them.

    {"messages": [{"role": "user", "content": "<image>Which colour?"}, ...], "images": ["a.png"], "id": ..., ...}

Contents are texts with `<image>` markers or lists of typed parts. TRL's {"prompt": ..., "completion": ...} is read too. Every
other field is kept in the metadata. Written: typed parts, so that nothing but video is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from argus.core.errors import DataError
from argus.core.formats import answers_of, field_of, id_of
from argus.core.formats.pictures import read_picture, split_markers, store_picture
from argus.core.sample import BoxPart, ImagePart, Message, Part, PointPart, Sample, TextPart

ROLES = ("system", "user", "assistant")
OWN = ("id", "messages", "images", "prompt", "completion", "target", "options")


def read(path: Path) -> Iterator[Sample | DataError]:
    """Samples of a file; a `DataError` in place of one that cannot be read."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                yield sample(parse(line, where, first=number == 1), path, number, where)
            except DataError as error:
                yield error


def parse(line: bytes, where: str, first: bool = False) -> Any:
    """JSON of one line.

    Raises:
        DataError: torn, or not UTF-8.
    """
    try:
        return json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", where=where) from None
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON at column {error.colno}: {error.msg}", where=where) from None


def sample(record: Any, path: Path, number: int, where: str) -> Sample:
    """One record as a sample."""
    if isinstance(record, dict) and "messages" not in record and "prompt" in record:
        record = {**record, "messages": _turns(record, where)}
    turns = field_of(record, "messages", list, where)
    given = record.get("images") or []
    given = given if isinstance(given, list) else [given]
    pictures = [read_picture(value, path.parent, f"{where}, field 'images'") for value in given]
    messages = [_message(turn, pictures, path, f"{where}, field 'messages.{i}'") for i, turn in enumerate(turns)]
    if pictures:
        raise DataError(f"{len(pictures)} pictures have no <image> marker", where=f"{where}, field 'images'")
    if not messages:
        raise DataError("there is no message", where=f"{where}, field 'messages'")
    target, options = answers_of(record, where)
    return Sample(
        id_of(record, path, number),
        messages,
        target=target,
        options=options,
        metadata={**{k: v for k, v in record.items() if k not in OWN}, "source": where},
    )


def _turns(record: dict[str, Any], where: str) -> list[Any]:
    prompt, completion = record["prompt"], record.get("completion")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else field_of(record, "prompt", list, where)
    if completion is None:
        return turns
    if isinstance(completion, str):
        return [*turns, {"role": "assistant", "content": completion}]
    return [*turns, *field_of(record, "completion", list, where)]


def _message(turn: Any, pictures: list[Path | bytes], path: Path, where: str) -> Message:
    role = field_of(turn, "role", str, where)
    if role not in ROLES:
        raise DataError(f"role '{role}' is none of {', '.join(ROLES)}", where=where)
    content = field_of(turn, "content", (str, list), where)
    if isinstance(content, str):
        return Message(role, split_markers(content, pictures, where))
    return Message(role, [_part(part, pictures, path, where) for part in content])


def _part(part: Any, pictures: list[Path | bytes], path: Path, where: str) -> Part:
    kind = field_of(part, "type", str, where)
    if kind == "text":
        return TextPart(field_of(part, "text", str, where))
    if kind in ("image", "image_url"):
        value = part.get("image") or part.get("path") or part.get("url") or part.get("image_url")
        if isinstance(value, dict) and "url" in value:
            value = value["url"]
        if value:
            return ImagePart(read_picture(value, path.parent, where))
        if not pictures:
            raise DataError("an image part has no picture left in 'images'", where=where)
        return ImagePart(pictures.pop(0))
    if kind == "box":
        return BoxPart(_numbers(part, "box", 4, where), part.get("label", ""), part.get("image", 0))
    if kind == "point":
        return PointPart(_numbers(part, "point", 2, where), part.get("label", ""), part.get("image", 0))
    raise DataError(f"part type '{kind}' is none of text, image, box, point", where=where)


def _numbers(part: Any, name: str, count: int, where: str) -> tuple[Any, ...]:
    values = field_of(part, name, list, where)
    if len(values) != count or not all(isinstance(value, int | float) for value in values):
        raise DataError(f"field '{name}' must be {count} numbers, not {values!r}", where=where)
    return tuple(values)


def write(samples: Iterable[Sample], part: Path, path: Path) -> None:
    """Write samples; pictures that are not files are stored beside the dataset."""
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for one in samples:
            images = [store_picture(image, path, f"{one.id}_{i}") for i, image in enumerate(one.images())]
            record: dict[str, Any] = {"id": one.id, "messages": [turn(m) for m in one.messages], "images": images}
            if one.target is not None:
                record["target"] = one.target
            if one.options:
                record["options"] = one.options
            record.update({k: v for k, v in one.metadata.items() if k != "source" and k not in OWN})
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def turn(message: Message) -> dict[str, Any]:
    """A message as JSON, pictures as placeholders."""
    content: list[dict[str, Any]] = []
    for part in message.content:
        match part:
            case TextPart():
                content.append({"type": "text", "text": part.text})
            case ImagePart():
                content.append({"type": "image"})
            case BoxPart():
                content.append({"type": "box", "box": list(part.box), "label": part.label, "image": part.image})
            case PointPart():
                content.append({"type": "point", "point": list(part.point), "label": part.label, "image": part.image})
            case _:
                raise DataError("JSON lines cannot hold a video's frames")
    return {"role": message.role, "content": content}
