"""Omnibenchmark as ChEF asks it (arXiv 2311.02692): a chain of classes from the root to the leaf, a question per level.

    meta_file/Classification_Omnibenchmark.json     {"image": ..., "chain": ["animal", "bird", "owl"], "realm_name": ...}
    tree: bamboo's {"id2name", "father2child", "child2father"}

    What is it?   What kind of animal is it?   What kind of bird is it?

A level's options are the right class and three of its siblings by lot (chance of the weighted accuracy 10.94 %). Each question
names the right class above (inferencer {multi_turn: {parent: truth}}); `parent: own` names the model's answer. Without `tree`
there is one question per picture, whose written answer may name any level. Both are scored by the metric `chain`. A sibling
counts if its first name leads back to it. A chain with a level without siblings, a question of one option, is set aside as a
whole, for its other turns name that level.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.sample import Sample
from argus.evaluation.scenarios.meta_file import MetaFile, MetaFileOptions
from argus.evaluation.taxonomy import Dimension

WRONG = 3


class OmnibenchmarkOptions(MetaFileOptions):
    """The download."""

    tree: Path | None = Field(None, description="the tree that classes hang in; one question per picture without it")


class Omnibenchmark(MetaFile):
    """Reads Classification_Omnibenchmark.json."""

    Options = OmnibenchmarkOptions
    options: OmnibenchmarkOptions
    file_name = "meta_file/Classification_Omnibenchmark.json"
    benchmark = "omnibenchmark"
    dimensions = (Dimension(1, "fine-grained classification", ()),)

    @cached_property
    def tree(self) -> dict[str, dict[str, list[str]]]:
        """Names, children and parents of the classes, and the class of a name.

        Raises:
            DataError: no such file, or not a tree.
        """
        where = str(self.options.tree)
        try:
            found = json.loads(Path(where).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"the tree cannot be read: {error}", where=where) from None
        known = {name: field_of(found, name, dict, where) for name in ("id2name", "father2child", "child2father")}
        for field, of in known.items():
            for key, names in of.items():
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise DataError(f"'{key}' must have a list of texts", where=f"{where}, field '{field}'")
        return {**known, "name2id": {name: [id_] for id_, names in known["id2name"].items() for name in names}}

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        chain = self.chain(record, where)
        return self.asked_about(record, where, "What is in the picture?", chain[-1], [], chain=chain)

    def samples(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sequence[Sample]:
        if self.options.tree is None:
            return super().samples(record, dimension, where)
        chain, lot = self.chain(record, where), self.lot(record)
        turns = []
        for level, name in enumerate(chain, start=1):
            above = chain[level - 2] if level > 1 else ""
            siblings = [one for one in self.siblings(name, above, where) if one != name]
            if not siblings:
                raise DataError(f"'{name}' has no sibling, so level {level} has one option", where=f"{where}, field 'chain'")
            options = [name, *lot.sample(siblings, min(WRONG, len(siblings)))]
            lot.shuffle(options)
            known = {"item": f"{self.benchmark}/{record['id']}", "level": level, "levels": len(chain)}
            known |= {"parent": above} if above else {}
            text = f"What kind of {above} is it?" if above else "What is it?"
            turns.append(self.asked_about(record, where, text, name, options, f"/{level}", **known))
        return turns

    def chain(self, record: dict[str, Any], where: str) -> list[str]:
        """The classes of a record, from the root."""
        chain = field_of(record, "chain", list, f"{where}, field 'chain'")
        if not chain or not all(isinstance(name, str) and name for name in chain):
            raise DataError("expected a list of names", where=f"{where}, field 'chain'")
        return chain

    def siblings(self, name: str, above: str, where: str) -> list[str]:
        """Names of the classes that have the same parent: the chain's, or the tree's for the first level."""
        tree = self.tree
        (own,) = tree["name2id"].get(name, [""])
        parents = tree["name2id"].get(above, []) if above else tree["child2father"].get(own, [])
        if not own or not parents:
            raise DataError(f"the tree has no class '{name}' below '{above or 'its root'}'", where=f"{where}, field 'chain'")
        names = [tree["id2name"][child][0] for child in tree["father2child"].get(parents[0], []) if tree["id2name"].get(child)]
        return [one for one in names if tree["id2name"][tree["name2id"][one][0]][0] == one]
