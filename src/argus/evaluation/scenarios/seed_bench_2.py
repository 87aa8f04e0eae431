"""SEED-Bench-2: Benchmarking Multimodal Large Language Models (arXiv 2311.17092).

27 dimensions in three levels of what goes in and comes out, each level holding the ones below:

    L1  pictures or frames, then text -> text      1-22   part P1: single (1-16), multi (17, 18), video (19-22)
    L2  pictures inside the text -> text           23, 24 part P2
    L3  the same -> pictures and text              25-27  part P3

All are four options. Answers are ranked as in SEED-Bench, by the mean likelihood of the option's tokens; pictures among the
options (25, 26 and, beside texts, 27) need the inferencer `drawn`. Every other inferencer leaves them out with the reason, and
a level with dimensions that were left out has no average.

Item file {"questions": [...], "question_type": {...}}; a question has question_id, question_type_id, question, choice_a ..
choice_d, answer, data_id (one file or a list), data_source (whose pictures), level, subpart, version. `<img>` in a question of
P2 stands for the next file of data_id; elsewhere pictures come first. In 25 and 27 data_id is the four options, in 26 the
context and then the four options.

The published averages exist over items and over dimensions: `P1` and `mean P1`; the paper's levels are means, `mean L2`. The
published code compares a single subpart as a substring and gives no accuracy; equality is used here. 19 published letters carry
a blank, which is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.formats.pictures import MARKER, split_markers
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.inferencers.base import PICTURES
from argus.evaluation.scenarios.published import LETTERS, Published, PublishedOptions, choice, picture_paths
from argus.evaluation.taxonomy import LEVELS, SEED_BENCH_2, Dimension, level_of

CC3M, OWN = "cc3m", "SEED-Bench v2"
TEXT_TO_IMAGE, NEXT_IMAGE, TEXT_AND_IMAGE = 25, 26, 27
IMG = "<img>"


class SeedBench2Options(PublishedOptions):
    """The download, and what of it is asked."""

    cc3m: Path | None = Field(None, description="folder of the CC3M pictures; cc3m-image beside the item file when not given")
    images: Path | None = Field(None, description="folder of all others; SEED-Bench-2-image beside the item file when not given")
    level: Literal["L1", "L2", "L3"] = Field("L3", description="highest level that is asked; lower ones are asked too")
    part: Literal["all", "single", "multi", "video", "P1", "P2", "P3"] = Field("all", description="one part of the taxonomy")
    version: Literal["v1", "v2"] = Field("v2", description="v1: only items inherited from SEED-Bench; v2: all")


class SeedBench2(Published):
    """Reads SEED-Bench_v2_level1_2_3.json."""

    Options = SeedBench2Options
    options: SeedBench2Options
    file_name = "SEED-Bench_v2_level1_2_3.json"
    dimensions = SEED_BENCH_2

    def asked(self) -> set[int]:
        highest, part = LEVELS.index(self.options.level), self.options.part
        return {d.id for d in SEED_BENCH_2 if LEVELS.index(level_of(d.id)) <= highest and (part == "all" or part in d.branches)}

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample | None:
        if self.options.version == "v1" and field_of(record, "version", str, f"{where}, field 'version'") != "v1":
            return None
        level = field_of(record, "level", str, f"{where}, field 'level'")
        if level != level_of(dimension.id):
            raise DataError(
                f"dimension {dimension.id} is of level {level_of(dimension.id)}, not {level}", where=f"{where}, field 'level'"
            )
        options, letter = choice(record, where)
        text = field_of(record, "question", str, f"{where}, field 'question'")
        pictures = picture_paths(record, self.root(record, where), where)
        shown, drawn = _divided(dimension.id, pictures, where)
        metadata: dict[str, Any] = {
            "family": dimension.name,
            "domain": "seed-bench-2",
            "branches": [*dimension.branches],
            "letter": letter,
            "source": where,
        }
        if drawn:
            metadata[PICTURES] = drawn
            options = options if dimension.id == TEXT_AND_IMAGE else [*LETTERS]
        plain: list[Part] = [*map(ImagePart, shown), TextPart(text)]
        parts = _interleaved(text, shown, where) if IMG in text else plain
        name = str(field_of(record, "question_id", (str, int), where))
        return Sample(name, [Message("user", parts)], options[LETTERS.index(letter)], options, metadata)

    def root(self, record: dict[str, Any], where: str) -> Path:
        """The folder of a record's pictures."""
        source = field_of(record, "data_source", str, f"{where}, field 'data_source'")
        if source not in (CC3M, OWN):
            raise DataError(f"'{source}' is neither '{CC3M}' nor '{OWN}'", where=f"{where}, field 'data_source'")
        if source == CC3M:
            return self.options.cc3m or self.file.parent / "cc3m-image"
        return self.options.images or self.file.parent / "SEED-Bench-2-image"


def _divided(dimension: int, pictures: list[Path], where: str) -> tuple[list[Path], list[Path]]:
    """What is shown, and what is to be chosen from."""
    if dimension < TEXT_TO_IMAGE:
        return pictures, []
    shown, drawn = (pictures[: -len(LETTERS)], pictures[-len(LETTERS) :]) if dimension == NEXT_IMAGE else ([], pictures)
    if len(drawn) != len(LETTERS) or (dimension == NEXT_IMAGE and not shown):
        raise DataError(f"{len(pictures)} pictures cannot be the context and four options", where=f"{where}, field 'data_id'")
    return shown, drawn


def _interleaved(text: str, pictures: list[Path], where: str) -> list[Part]:
    """The question with each picture at its marker.

    Raises:
        DataError: not as many markers as pictures.
    """
    if (markers := text.count(IMG)) != len(pictures):
        raise DataError(
            f"the question has {markers} {IMG}, but there are {len(pictures)} pictures", where=f"{where}, field 'data_id'"
        )
    return split_markers(text.replace(IMG, MARKER), [*pictures], where)
