"""CIFAR-10 as ChEF asks it (arXiv 2311.02692): which of ten classes is in the picture?

    meta_file/Classification_CIFAR10.json     {"image": ..., "label": "airplane"}

The options are the ten names: the inferencer `ppl` (chance 10 %). Written answers are right if the class's word is among
theirs, `class_match`, or one of its synonyms too, `word_match` (the metadata `answers`). ChEF's 20 ways to ask are the
instruction {query: {pool: classification, index: k}}.
"""

from __future__ import annotations

from typing import Any

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.sample import Sample
from argus.evaluation.scenarios.meta_file import MetaFile
from argus.evaluation.taxonomy import Dimension

SYNONYMS: dict[str, tuple[str, ...]] = {
    "airplane": ("plane", "aeroplane", "aircraft", "jet"),
    "automobile": ("car", "auto", "vehicle"),
    "bird": (),
    "cat": ("kitten",),
    "deer": ("doe", "stag", "fawn"),
    "dog": ("puppy",),
    "frog": ("toad",),
    "horse": ("pony", "stallion", "mare", "foal"),
    "ship": ("boat", "vessel", "ferry"),
    "truck": ("lorry",),
}


class CIFAR10(MetaFile):
    """Reads Classification_CIFAR10.json."""

    file_name = "meta_file/Classification_CIFAR10.json"
    benchmark = "cifar10"
    dimensions = (Dimension(1, "classification", (), 10_000),)

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        label = field_of(record, "label", str, f"{where}, field 'label'")
        if label not in SYNONYMS:
            raise DataError(f"'{label}' is none of {', '.join(SYNONYMS)}", where=f"{where}, field 'label'")
        answers = list(SYNONYMS[label])
        return self.asked_about(record, where, "What is in the picture?", label, list(SYNONYMS), answers=answers)
