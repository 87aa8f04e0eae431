"""ScienceQA's questions with a picture as ChEF asks them (arXiv 2311.02692): 2,017 with two to five options.

    meta_file/VQA_ScienceQA.json     {"image": ..., "query": "What ...? Context: ... Options: (A) ... (B) ...",
                                      "gt_choices": [...], "gt_choice": 1}

The question is what stands before "Context:" and "Options:"; the context is dropped, the options are printed again by the
instruction {query: {layout: scienceqa, answer: letter}}. Chance is 35.8 %.

ScienceQA-C: `path` names VQA_ScienceQA_C.json for its texts, options and their new order; `pictures` names its folder for its
pictures. Either alone is the other corruption alone.
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import Any

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.sample import Sample
from argus.evaluation.scenarios.meta_file import MetaFile
from argus.evaluation.taxonomy import Dimension

_END = re.compile(r"\s*(?:Context|Options):")


class ScienceQA(MetaFile):
    """Reads VQA_ScienceQA.json."""

    file_name = "meta_file/VQA_ScienceQA.json"
    benchmark = "scienceqa"
    dimensions = (Dimension(1, "science", (), 2017),)

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        options, place = choices(record, where)
        text = _END.split(field_of(record, "query", str, f"{where}, field 'query'"), maxsplit=1)[0].strip()
        return self.asked_about(record, where, text, options[place], options, letter=ascii_uppercase[place])


def choices(record: dict[str, Any], where: str) -> tuple[list[str], int]:
    """The options and the place of the right one.

    Raises:
        DataError: there are none, or the place is not among them.
    """
    options = list(map(str, field_of(record, "gt_choices", list, f"{where}, field 'gt_choices'")))
    place = field_of(record, "gt_choice", int, f"{where}, field 'gt_choice'")
    if not 0 <= place < len(options):
        raise DataError(f"choice {place} of {len(options)} options", where=f"{where}, field 'gt_choice'")
    return options, place
