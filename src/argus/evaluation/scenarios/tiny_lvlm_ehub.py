"""Tiny LVLM-eHub (arXiv 2308.03729): fifty items of each of 42 of LVLM-eHub's sets, or five files of an ability each.

    order of a set = the permutation of its rows with numpy's seed 20230719           (the same whatever sets there are beside it)
    published      rows order[indices], by a published file of {"dataset": ..., "indices": [50 positions]} per line: pictures that
                   some services refuse were replaced by the next ones
    following      rows order[p+1 : p+101] of the listed sets, p the last published position: a new split of them, which shares
                   nothing with the first
    saved          all rows, for folders in which they are already chosen: <set>/dataset.json with the pictures beside it

A set that the index file does not name gives the first 50 of its order, sets of the embodied capability all rows. Splits
carry different names in ids and in the domain of the numbers, so that they never meet in one.

The later release has a file per ability; the leaderboard's overall score is the sum of their five accuracies in percent,
which is 500 `word_match[mean overall]`. `word_match[overall]` pools the items. Fifty items have a standard error of seven
points at 50 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field, model_validator

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.formats.llava import records
from argus.core.sample import Sample
from argus.evaluation.scenarios.lvlm_ehub import CAPABILITIES, CAPABILITY, OCR, LVLMEHub, LVLMEHubOptions
from argus.evaluation.scenarios.lvlm_ehub_rows import Row, key

SEED, ITEMS, FOLLOWING = 20230719, 50, 100
HOUSEHOLD = 6  # items of VirtualHome, the embodied set that the paper scores
ABILITIES = {
    "Visual_Reasoning": 550,
    "Visual_Perception": 400,
    "Visual_Knowledge_Acquisition": 700,
    "Visual_Commonsense": 500,
    "Object_Hallucination": 300,
}
EMBODIED = set(map(key, CAPABILITIES["embodied intelligence"]))
T = TypeVar("T")


class TinyLVLMEHubOptions(LVLMEHubOptions):
    """The download, and which of its items."""

    split: Literal["saved", "published", "following"] = Field(
        "saved", description="all rows, or a choice among those of full sets"
    )
    indices: Path | None = Field(None, description="the published positions, a line of JSON per set; needed by both choices")

    @model_validator(mode="after")
    def _listed(self) -> TinyLVLMEHubOptions:
        if (self.split != "saved") != (self.indices is not None):
            raise ValueError("the splits `published` and `following` need the file `indices`, `saved` has no use for it")
        return self


class TinyLVLMEHub(LVLMEHub):
    """Reads the chosen items, or chooses them."""

    Options = TinyLVLMEHubOptions
    options: TinyLVLMEHubOptions
    benchmark = "tiny-lvlm-ehub"
    prompts: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("ImageNet", "ImageNet1K", "CIFAR10"), "Classify the main object in the image."),
        "Flowers102": "What breed is the flower in the image?",
        **dict.fromkeys(("OxfordIIITPet", "Pets37"), "What breed is the pet in the image?"),
        **dict.fromkeys(OCR, "What is written in the image?"),
    }
    published: ClassVar[Mapping[str, int]] = {**dict.fromkeys(CAPABILITY, ITEMS), "VirtualHome": HOUSEHOLD, **ABILITIES}

    @cached_property
    def positions(self) -> dict[str, list[int]]:
        """Set -> its published positions.

        Raises:
            DataError: the index file cannot be read.
        """
        found: dict[str, list[int]] = {}
        if self.options.indices is not None:
            for one in records(self.options.indices):
                if isinstance(one, DataError):
                    raise one
                record, line = one
                where = f"{self.options.indices}:{line}"
                found[key(field_of(record, "dataset", str, where))] = _integers(record, where)
        return found

    @property
    def domain(self) -> str:
        split = self.options.split
        return self.benchmark if split == "saved" else f"{self.benchmark} ({split})"

    def chosen(self, name: str, rows: list[Row | DataError]) -> list[Row | DataError]:
        if self.options.split == "saved" or key(name) in EMBODIED:
            return rows
        listed = self.positions.get(key(name))
        if listed is not None and max(listed) >= len(rows):
            raise DataError(
                f"position {max(listed)} of a set with {len(rows)} rows: '{name}' is not whole", where=str(self.files[name])
            )
        return chosen(rows, listed, self.options.split == "following")

    def sample(self, name: str, number: int, row: Row) -> Sample:
        sample = super().sample(name, number, row)
        if key(name) in map(key, ABILITIES):
            sample.metadata["branches"] = ["overall"]
        return sample


def chosen(rows: Sequence[T], positions: Sequence[int] | None, following: bool) -> list[T]:
    """Rows of a set in the order of its permutation.

    Args:
        positions: the published ones; the first fifty where there are none.
        following: the hundred behind the last one instead.
    """
    order = np.random.RandomState(SEED).permutation(len(rows))
    listed = range(min(ITEMS, len(rows))) if positions is None else positions
    if following and positions is not None:
        listed = range(max(positions) + 1, min(max(positions) + 1 + FOLLOWING, len(rows)))
    return [rows[order[i]] for i in listed]


def _integers(record: Any, where: str) -> list[int]:
    given = field_of(record, "indices", list, f"{where}, field 'indices'")
    if not given or not all(isinstance(one, int) and one >= 0 for one in given):
        raise DataError("expected a list of positions", where=f"{where}, field 'indices'")
    return given
