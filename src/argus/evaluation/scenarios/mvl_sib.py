"""MVL-SIB: A Massively Multilingual Vision-Language Benchmark for Cross-Modal Topical Matching (arXiv 2502.12852).

The same 1,004 sentences in 205 languages and ten pictures of each of seven topics: what belongs together? Nothing but the
language differs between two numbers, and text-only twins of both cross-modal tasks tell a gap of vision from a gap of language.
Chance is 25 %.

    i2s  k pictures -> one of four sentences        t2s  the topic's English name -> one of four sentences
    s2i  k sentences -> one of four pictures        s2t  k sentences -> one of four topic names
    gaps: s2t - s2i and t2s - i2s

Instructions are English in all languages; sentences are not. The paper's wording is not published: these prompts have its
structure (what follows, numbered; lettered options; the letter only). The answer is right if it starts with the right letter
(metric `letter_start`); the family is the language, the branches are the tiers that the options name. A row's pictures do not
depend on the language, so a row is a group with all languages in it and its pictures are encoded once. Dual encoders are asked
by the inferencer `cosine`, from the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache, cached_property
from itertools import islice, zip_longest
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from pydantic import Field

from argus.core.errors import ArgusError, DataError, nearest
from argus.core.formats import KEPT_ERRORS
from argus.core.registry import Options
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.inferencers.cosine import CANDIDATE_TEXTS, REFERENCE_TEXTS
from argus.evaluation.scenarios import mvl_sib_rows as rows
from argus.evaluation.scenarios.base import Group, Scenario
from argus.evaluation.scenarios.mvl_sib_rows import Direction, Draw, Row
from argus.evaluation.scenarios.published import Download

LETTERS = ascii_uppercase[: rows.CANDIDATES]
REQUEST = "Answer with the letter only."
FORMS = {
    "i2s": ("Here are pictures of one topic:", "Which of these sentences belongs to the same topic?"),
    "s2i": ("Here are sentences of one topic:", "Which of these pictures belongs to the same topic?"),
    "t2s": ("Here is the name of a topic:", "Which of these sentences belongs to the same topic?"),
    "s2t": ("Here are sentences of one topic:", "Which of these topics is it?"),
}


class MVLSIBOptions(Options):
    """The download, and what of it is asked."""

    path: Path = Field(description="the download's folder, which holds data/sib200 and data/images/sib200")
    task: Literal["i2s", "s2i", "t2s", "s2t"] = Field("s2i", description="what is matched with what")
    references: Literal[1, 3, 5] = Field(1, description="k: pictures or sentences that show the topic; t2s always has its name")
    languages: list[str] = Field(default_factory=list, description="codes with script, such as eng_Latn; all when empty")
    tiers: dict[str, list[str]] = Field(default_factory=dict, description="tier -> its languages, for averages over tiers")
    turned: bool = Field(False, description="ask every row once per rotation of its candidates, against letter bias")
    rows: Path | None = Field(
        None, description="folder of <img2sent|sent2img>.<language>.parquet or .jsonl as the published loader writes them; "
        "drawn here when not given"
    )  # fmt: skip


class MVLSIB(Scenario):
    """Reads sentences and pictures, and asks row by row, each in all languages."""

    Options = MVLSIBOptions
    options: MVLSIBOptions

    def __init__(self, options: MVLSIBOptions) -> None:
        super().__init__(options)
        texts = options.path / "data" / "sib200"
        known = sorted(p.name for p in texts.iterdir() if p.is_dir()) if texts.is_dir() else []
        if not known:
            raise DataError("there are no languages.", where=str(texts), hint="`path` is the folder that holds `data`.")
        for language in [*options.languages, *(code for tier in options.tiers.values() for code in tier)]:
            if language not in known:
                raise DataError(f"there is no language '{language}'.", where=str(texts), hint=nearest(language, known))
        self.texts, self.languages = texts, options.languages or known
        self.pictures = options.path / "data" / "images" / "sib200"
        self.direction: Direction = "img2sent" if options.task in ("i2s", "t2s") else "sent2img"
        self.prepared = cache(rows.prepared)  # seventy pictures, shown thousands of times

    @cached_property
    def categories(self) -> list[tuple[int, str]]:
        """(index_id, topic) of every sentence, in every language."""
        return [(index, topic) for index, topic, _ in rows.read_sentences(self.texts / self.languages[0])]

    @cached_property
    def draws(self) -> list[Draw]:
        """Which sentences and pictures meet, in every language."""
        return rows.manifest(self.categories, self.direction, self.options.references)

    def rows_of(self, language: str) -> Iterator[Row | DataError]:
        """The rows of a language, in their order.

        Raises:
            DataError: its files cannot be read, or its sentences are not those of the other languages.
        """
        if self.options.rows is not None:
            names = [self.options.rows / f"{self.direction}.{language}.{ending}" for ending in ("parquet", "jsonl")]
            path = next((name for name in names if name.is_file()), None)
            if path is None:
                raise DataError("there is no such file.", where=" or ".join(map(str, names)))
            yield from rows.read_rows(path, self.pictures)
            return
        found = rows.read_sentences(self.texts / language)
        if [one[:2] for one in found] != self.categories:
            raise DataError(f"its ids and topics are not those of {self.languages[0]}", where=str(self.texts / language))
        texts = {index: text for index, _, text in found}
        for draw in self.draws:
            shown = tuple(self.pictures / f"{name}.jpg" for name in draw.images)
            sentences = tuple(texts[index] for index in draw.sentences)
            yield Row(draw.id, shown, sentences, draw.label)

    def sample(self, row: Row, language: str, turn: int = 0) -> Sample:
        """A row as asked, its candidates turned by `turn`.

        Raises:
            DataError: a picture cannot be read, or the row has other numbers of references and candidates.
        """
        task, k = self.options.task, self.options.references
        backward = self.direction == "img2sent"
        references: Any = row.images if backward else row.sentences
        candidates: Any = row.sentences if backward else row.images
        name = f"{task}/{row.id}"
        if (len(references), len(candidates)) != (k, rows.CANDIDATES):
            raise DataError(f"{len(references)} references and {len(candidates)} candidates, not {k} and 4", where=name)
        if task == "t2s":  # the topic is that of the reference pictures; rows as published name it nowhere else
            references = (rows.topic_of(row.images[0]),)
        elif task == "s2t":
            candidates = tuple(map(rows.topic_of, row.images))
        candidates = candidates[turn:] + candidates[:turn]
        letter = LETTERS[(row.label - turn) % rows.CANDIDATES]
        head, asked = FORMS[task]
        parts: list[Part] = [TextPart(f"{head}\n")]
        for n, one in enumerate(references, start=1):
            parts += [TextPart(f"{n}. "), self.part(one), TextPart("\n")]
        parts.append(TextPart(f"{asked}\n"))
        for mark, one in zip(LETTERS, candidates, strict=True):
            parts += [TextPart(f"{mark}. "), self.part(one), TextPart("\n")]
        parts.append(TextPart(REQUEST))
        metadata = {
            "family": language,
            "domain": f"mvl-sib {task}",
            "branches": [tier for tier, members in self.options.tiers.items() if language in members],
            "picture": name,
            "source": f"{language}, row {row.id}",
            **({"item": f"{name}/{language}"} if self.options.turned else {}),
            **({} if task == "i2s" else {REFERENCE_TEXTS: list(references)}),
            **({} if task == "s2i" else {CANDIDATE_TEXTS: list(candidates)}),
        }
        id_ = f"{name}/{language}" + (f"/r{turn}" if turn else "")
        return Sample(id_, [Message("user", _merged(parts))], letter, list(LETTERS), metadata)

    def part(self, one: str | Path) -> Part:
        """A text, or a picture as the paper shows it."""
        return ImagePart(self.prepared(one)) if isinstance(one, Path) else TextPart(one)

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        turns = range(rows.CANDIDATES if self.options.turned else 1)
        per_row = len(self.languages) * len(turns)
        count = None if samples is None else -(-samples // per_row)
        first = 0 if count is None else seed * count
        streams = [self.rows_of(language) for language in self.languages]
        left = samples
        part = islice(zip_longest(*streams), first, None if count is None else first + count)
        for number, in_languages in enumerate(part, start=first):
            group = Group(f"{self.options.task}/{number}", [])
            for language, row in zip(self.languages, in_languages, strict=True):
                try:
                    if isinstance(row, DataError):
                        raise row
                    if row is None:
                        raise DataError(f"its rows end before number {number}", where=language)
                    group.samples += [self.sample(row, language, turn) for turn in turns]
                except ArgusError as error:
                    group.errors[f"{group.id}/{language}"] = f"{type(error).__name__}: {error.text()}"
            if left is not None:
                group.samples = group.samples[:left]
                left -= len(group.samples) + len(group.errors)
            yield group

    def check(self) -> Download:
        """Read every row of every language, pictures included, and say what is wrong with it."""
        found: Counter[str] = Counter(dict.fromkeys(self.languages, 0))
        letters: Counter[str] = Counter()
        problems: list[str] = []
        for language in self.languages:
            try:
                for row in self.rows_of(language):
                    if isinstance(row, DataError):
                        problems.append(row.text())
                        continue
                    sample = self.sample(row, language)
                    found[language] += 1
                    letters[sample.target or ""] += 1
            except ArgusError as error:
                problems.append(error.text())
        where = self.options.rows or f"{self.options.path}, manifest {rows.fingerprint(self.draws)}"
        total = dict.fromkeys(found, rows.REPEATS * rows.SENTENCES)
        return Download(str(where), dict(found), {**total}, dict(sorted(letters.items())), len(problems), problems[:KEPT_ERRORS])


def _merged(parts: list[Part]) -> list[Part]:
    """Texts that follow each other as one."""
    out: list[Part] = []
    for part in parts:
        if out and isinstance(part, TextPart) and isinstance(before := out[-1], TextPart):
            out[-1] = TextPart(before.text + part.text)
        else:
            out.append(part)
    return out
