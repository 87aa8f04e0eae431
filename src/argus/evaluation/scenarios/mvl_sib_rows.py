"""Rows of MVL-SIB (arXiv 2502.12852): the sentences of SIB-200, 70 pictures of seven topics, and which of them meet in a row.

    data/sib200/<language>/{train,dev,test}.tsv      index_id  category  text        1,004 sentences, the same in every language
    data/images/sib200/<topic>_<0..9>.jpg            ten pictures per topic

A sentence x of topic t makes three rows. Positive are x, further sentences of t and pictures of t; three other topics are drawn
without replacement and give one sentence and one picture each.

    images to sentence      k pictures of t  ->  x among the negative sentences
    sentence to images      k sentences of t, x first  ->  one picture of t among the negative pictures

Draws depend on topics and indices alone, so all languages have the same candidates and labels, and languages are compared in
pairs. The published loader draws with Python's generator seeded 42, once for all rows; that order is not part of its interface,
so here the manifest (ids and labels) is what counts: numpy's PCG64 seeded (42, k), one manifest per number of references, and
`fingerprint` of it belongs to every number. Rows that the published loader wrote are read in its stead.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from argus.core.errors import DataError, nearest
from argus.core.formats import field_of, parquet
from argus.core.formats.llava import records
from argus.core.images import load_image

TOPICS = ("entertainment", "geography", "health", "politics", "science", "sports", "travel")
LABELS = {"science/technology": "science"}  # a topic as the sentences' files call it
SPLITS = ("train", "dev", "test")
SENTENCES, PICTURES, REPEATS, CANDIDATES = 1004, 10, 3, 4
SEED = 42
LONG, SHORT, REDUCING = 640, 480, 2.0

Direction = Literal["img2sent", "sent2img"]


@dataclass(frozen=True, slots=True)
class Draw:
    """What meets in a row; the same in every language.

    Args:
        topics: of the candidates, in their order.
        images: names of the k reference pictures, or of the four candidates.
        sentences: index_ids of the four candidates, or of the k reference sentences.
        label: place of the right candidate.
    """

    id: int
    index_id: int
    topics: tuple[str, ...]
    images: tuple[str, ...]
    sentences: tuple[int, ...]
    label: int


@dataclass(frozen=True, slots=True)
class Row:
    """A draw in one language: with texts in place of ids."""

    id: int
    images: tuple[Path, ...]
    sentences: tuple[str, ...]
    label: int


def manifest(categories: Sequence[tuple[int, str]], direction: Direction, references: int) -> list[Draw]:
    """All rows of a direction.

    Args:
        categories: (index_id, topic) of every sentence, in the files' order.
        references: k.

    Raises:
        DataError: a topic has fewer sentences than a row needs.
    """
    by_topic = {topic: [index for index, of in categories if of == topic] for topic in TOPICS}
    for topic, members in by_topic.items():
        if len(members) < references:
            raise DataError(f"topic '{topic}' has {len(members)} sentences, and a row needs {references}")
    rng = np.random.Generator(np.random.PCG64((SEED, references, direction == "sent2img")))
    draws = []
    for number in range(REPEATS * len(categories)):
        index, topic = categories[number % len(categories)]
        others = [TOPICS[i] for i in rng.permutation(len(TOPICS)) if TOPICS[i] != topic][: CANDIDATES - 1]
        fellows = [s for s in (by_topic[topic][i] for i in rng.permutation(len(by_topic[topic]))) if s != index]
        pictures = [f"{topic}_{n}" for n in rng.permutation(PICTURES)]
        order = rng.permutation(CANDIDATES).tolist()
        wrong_sentences = [by_topic[other][rng.integers(len(by_topic[other]))] for other in others]
        wrong_pictures = [f"{other}_{rng.integers(PICTURES)}" for other in others]
        topics = _ordered([topic, *others], order)
        if direction == "img2sent":
            images, sentences = tuple(pictures[:references]), _ordered([index, *wrong_sentences], order)
        else:
            images, sentences = _ordered([pictures[0], *wrong_pictures], order), (index, *fellows[: references - 1])
        draws.append(Draw(number, index, topics, images, sentences, order.index(0)))
    return draws


def _ordered(items: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    return tuple(items[i] for i in order)


def fingerprint(draws: Sequence[Draw]) -> str:
    """SHA-256 of a manifest, to its first 16 digits."""
    return hashlib.sha256(json.dumps([asdict(draw) for draw in draws]).encode()).hexdigest()[:16]


def read_sentences(folder: Path) -> list[tuple[int, str, str]]:
    """(index_id, topic, text) of every sentence of a language, the three splits behind one another.

    Raises:
        DataError: a file or column is missing, an id stands twice, or a topic is unknown.
    """
    found: list[tuple[int, str, str]] = []
    seen: dict[int, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.tsv"
        if not path.is_file():
            raise DataError("there is no such file.", where=str(path))
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                lines = csv.DictReader(file, delimiter="\t")
                table = [(record, lines.line_num) for record in lines]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"cannot be read: {error}", where=str(path)) from None
        for record, line in table:
            where = f"{path}:{line}"
            number = field_of(record, "index_id", str, where)
            label = field_of(record, "category", str, where)
            if not number.isdecimal():
                raise DataError(f"index_id '{number}' is no number", where=f"{where}, field 'index_id'")
            topic = LABELS.get(label, label)
            if topic not in TOPICS:
                raise DataError(f"unknown topic '{label}'.", where=f"{where}, field 'category'", hint=nearest(label, TOPICS))
            if int(number) in seen:
                raise DataError(f"'{number}' stands in {seen[int(number)]} too", where=f"{where}, field 'index_id'")
            seen[int(number)] = path.name
            found.append((int(number), topic, field_of(record, "text", str, where)))
    return found


def read_rows(path: Path, pictures: Path) -> Iterator[Row | DataError]:
    """Rows that the published loader wrote, as parquet or JSON lines: images, sentences, label, id."""
    for found in parquet.rows(path) if path.suffix == ".parquet" else records(path):
        if isinstance(found, DataError):
            yield found
            continue
        record, number = found
        where = f"{path}, row {number}"
        try:
            images, sentences = (_texts(record, name, where) for name in ("images", "sentences"))
            label = field_of(record, "label", int, where)
            if not 0 <= label < CANDIDATES:
                raise DataError(f"label {label} is none of 0 to 3", where=f"{where}, field 'label'")
            if unknown := {topic_of(name) for name in images} - set(TOPICS):
                raise DataError(f"pictures of unknown topics {', '.join(sorted(unknown))}", where=f"{where}, field 'images'")
            shown = tuple(pictures / Path(name).name for name in images)
            yield Row(int(field_of(record, "id", (int, str), where)), shown, tuple(sentences), label)
        except DataError as error:
            yield error


def topic_of(picture: str | Path) -> str:
    """The topic that a picture's name begins with."""
    return Path(picture).stem.rpartition("_")[0]


def _texts(record: Any, name: str, where: str) -> list[str]:
    found = field_of(record, name, list, where)
    if not all(isinstance(one, str) for one in found):
        raise DataError("expected a list of texts", where=f"{where}, field '{name}'")
    return found


def shrunk(picture: Image.Image) -> Image.Image:
    """The picture inside 640 x 480 if it is wider than high, else inside 480 x 640; never enlarged."""
    out = picture.copy()
    box = (LONG, SHORT) if picture.width > picture.height else (SHORT, LONG)
    out.thumbnail(box, Image.Resampling.LANCZOS, reducing_gap=REDUCING)
    return out


def prepared(path: Path) -> bytes:
    """A picture as the paper shows it: made smaller, and saved as JPEG.

    Raises:
        DataError: it is missing or torn.
    """
    out = io.BytesIO()
    shrunk(load_image(path)).save(out, "JPEG")
    return out.getvalue()
