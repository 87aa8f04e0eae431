"""SEED-Bench: Benchmarking Multimodal LLMs with Generative Comprehension (arXiv 2307.16125).

19 thousand questions with four options in twelve dimensions, nine on pictures and three on videos. Nothing judges: the answer
is the option that the model finds likeliest, as text and without letters,

    answer = argmin_o  1/|o| sum_t -log p(o_t | pictures, question, o_<t)

which is the inferencer {likelihood: {normalise: mean, end: false}}. Other methods (the likelihood of a letter, a written
letter) are instructions and inferencers too, and numbers of different methods do not belong in one table.

Item file {"questions": [...], "question_type": {...}}; a question has question_id, question_type_id 1-12, question, choice_a ..
choice_d, answer, data_type, data_id and, in dimensions 11 and 12, segment: in seconds there, in frames here. Videos are eight
frames.

Averages: `image` (dimensions 1-9) and `video` (10-12) over their items, as the leaderboard; `mean image` over dimensions, its
other view. Published code and paper agree on this; the code's own accuracy step reads fields that it never wrote, so it is not
followed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.sample import ImagePart, Message, Sample, TextPart, VideoPart
from argus.evaluation.scenarios.published import LETTERS, Published, PublishedOptions, choice, picture_paths
from argus.evaluation.taxonomy import SEED_BENCH, Dimension

FRAMES = 8  # per video
SECONDS, FRAME_NUMBERS = 11, 12  # dimensions whose segment is in seconds, and in frames
FOLDERS = {10: "videos/ssv2", 11: "videos/epic-kitchens", 12: "videos/breakfast"}  # where the options name none


class SeedBenchOptions(PublishedOptions):
    """The download, and what of it is asked."""

    images: Path | None = Field(None, description="folder of the pictures; SEED-Bench-image beside the item file when not given")
    videos: dict[Literal[10, 11, 12], Path] = Field(
        default_factory=dict,
        description="folder of the videos of dimensions 10 to 12; videos/ssv2, videos/epic-kitchens, videos/breakfast otherwise",
    )
    task: Literal["all", "image", "video"] = Field("all", description="which dimensions are asked")
    only: list[int] = Field(
        default_factory=list, description="numbers of the dimensions to ask, 1 to 12; all of the task when empty"
    )
    frames: int = Field(FRAMES, ge=1, le=256, description="frames per video")


class SeedBench(Published):
    """Reads SEED-Bench.json."""

    Options = SeedBenchOptions
    options: SeedBenchOptions
    file_name = "SEED-Bench.json"
    dimensions = SEED_BENCH

    def asked(self) -> set[int]:
        task, only = self.options.task, set(self.options.only)
        return {d.id for d in SEED_BENCH if (task == "all" or task in d.branches) and (not only or d.id in only)}

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        options, letter = choice(record, where)
        name = str(field_of(record, "question_id", (str, int), where))
        text = field_of(record, "question", str, f"{where}, field 'question'")
        metadata: dict[str, Any] = {
            "family": dimension.name,
            "domain": "seed-bench",
            "branches": [*dimension.branches],
            "letter": letter,
            "source": where,
        }
        shown: list[Any]
        if dimension.branches == ("image",):
            shown = [ImagePart(p) for p in picture_paths(record, self.images(), where)]
        else:
            shown = [VideoPart(p) for p in picture_paths(record, self.videos(dimension.id), where)]
            metadata["frames"] = {"frames": self.options.frames, **_segment(record, dimension.id, where)}
        return Sample(name, [Message("user", [*shown, TextPart(text)])], options[LETTERS.index(letter)], options, metadata)

    def images(self) -> Path:
        """The folder of the pictures."""
        return self.options.images or self.file.parent / "SEED-Bench-image"

    def videos(self, dimension: int) -> Path:
        """The folder of a dimension's videos."""
        given = {int(number): folder for number, folder in self.options.videos.items()}
        return given.get(dimension) or self.file.parent / FOLDERS[dimension]


def _segment(record: dict[str, Any], dimension: int, where: str) -> dict[str, Any]:
    """The stretch of a video that is asked about, as `read_frames` takes it."""
    if dimension not in (SECONDS, FRAME_NUMBERS):
        return {}
    place = f"{where}, field 'segment'"
    segment = field_of(record, "segment", list, place)
    if len(segment) != 2 or not all(isinstance(t, int | float) for t in segment) or segment[0] >= segment[1]:
        raise DataError("expected [start, end]", where=place)
    return {"start": segment[0], "end": segment[1], "seconds": dimension == SECONDS}
