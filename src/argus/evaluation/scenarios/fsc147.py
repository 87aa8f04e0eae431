"""FSC-147 as ChEF asks it (arXiv 2311.02692): how many things of a kind are in the picture?

    meta_file/Counting_FSC147.json     {"image": ..., "num": 10, "query": "How many eggs are there in this image?"}

The inferencer `ppl` chooses among five numbers g-2 .. g+2 around the right one (chance 20 %). So that all are as long, one of a
lower decade than g is replaced by the next number above all five, one of a higher decade by the next below them:

    10 -> 13 14 10 11 12          9 -> 7 8 9 6 5

Written numbers: the metric `counting`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.sample import Sample
from argus.evaluation.scenarios.meta_file import MetaFile, MetaFileOptions
from argus.evaluation.taxonomy import Dimension


class FSC147Options(MetaFileOptions):
    """The download, and how near the wrong numbers are."""

    width: int = Field(2, ge=1, le=4, description="how far the numbers go on either side of the right one")


class FSC147(MetaFile):
    """Reads Counting_FSC147.json."""

    Options = FSC147Options
    options: FSC147Options
    file_name = "meta_file/Counting_FSC147.json"
    benchmark = "fsc147"
    dimensions = (Dimension(1, "counting", ()),)

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        number = field_of(record, "num", int, f"{where}, field 'num'")
        if number < 0:
            raise DataError(f"there cannot be {number} things", where=f"{where}, field 'num'")
        text = field_of(record, "query", str, f"{where}, field 'query'")
        return self.asked_about(record, where, text, str(number), list(map(str, around(number, self.options.width))))


def around(number: int, width: int) -> list[int]:
    """Candidates around a number, all of its decade or beyond the others.

    >>> around(10, 2), around(9, 2)
    ([13, 14, 10, 11, 12], [7, 8, 9, 6, 5])
    """
    near = list(range(max(0, number - width), number + width + 1))
    above, below = near[-1], near[0]
    found = []
    for one in near:
        if one // 10 < number // 10:
            above += 1
            one = above
        elif one // 10 > number // 10:
            below -= 1
            one = below
        found.append(one)
    return found
