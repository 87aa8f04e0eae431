"""Parquet as Hugging Face datasets store conversations: `messages` as JSON text or lists, `images` as {bytes, path}.

Read a few rows at a time. Written: columns id, messages (JSON), images, target, options, metadata (JSON); nothing but video is
lost. Needs the extra `data`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from argus.core.errors import ArgusError, DataError
from argus.core.formats import messages
from argus.core.formats.pictures import picture_bytes
from argus.core.sample import Sample

GROUP = 512  # samples of a row group
BATCH = 64  # rows in memory when reading


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet

        return pyarrow
    except ImportError:
        raise ArgusError("reading and writing parquet needs pyarrow", hint='pip install "argus-vl[data]"') from None


def read(path: Path) -> Iterator[Sample | DataError]:
    """Samples of a file; a `DataError` in place of one that cannot be read."""
    for found in rows(path):
        if isinstance(found, DataError):
            yield found
            continue
        row, number = found
        where = f"{path}, row {number}"
        try:
            record = {k: v for k, v in row.items() if v is not None}
            if isinstance(record.get("messages"), str):
                record["messages"] = messages.parse(record["messages"].encode(), f"{where}, field 'messages'")
            if isinstance(record.get("metadata"), str):
                record.update(messages.parse(record.pop("metadata").encode(), f"{where}, field 'metadata'"))
            yield messages.sample(record, path, number, where)
        except DataError as error:
            yield error


def rows(path: Path) -> Iterator[tuple[dict[str, Any], int] | DataError]:
    """Every row of a file with its number, from 1; a `DataError` where it is torn."""
    arrow = _pyarrow()
    number = 0
    try:
        for batch in arrow.parquet.ParquetFile(path).iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                number += 1
                yield row, number
    except (arrow.ArrowInvalid, OSError) as error:
        place = f"{path}, behind row {number}" if number else str(path)
        yield DataError(f"this is not a whole parquet file: {error}", where=place)


def write(samples: Iterable[Sample], part: Path, path: Path) -> None:
    """Write samples, pictures inside."""
    arrow = _pyarrow()
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    schema = arrow.schema(
        [
            ("id", arrow.string()),
            ("messages", arrow.string()),
            ("images", arrow.list_(picture)),
            ("target", arrow.string()),
            ("options", arrow.list_(arrow.string())),
            ("metadata", arrow.string()),
        ]
    )
    stream = iter(samples)
    with arrow.parquet.ParquetWriter(part, schema) as out:
        while rows := [_row(one) for one in islice(stream, GROUP)]:
            out.write_table(arrow.Table.from_pylist(rows, schema))


def _row(one: Sample) -> dict[str, Any]:
    return {
        "id": one.id,
        "messages": json.dumps([messages.turn(m) for m in one.messages], ensure_ascii=False),
        "images": [{"bytes": picture_bytes(i), "path": None} for i in one.images()],
        "target": one.target,
        "options": one.options,
        "metadata": json.dumps({k: v for k, v in one.metadata.items() if k != "source"}, ensure_ascii=False),
    }
