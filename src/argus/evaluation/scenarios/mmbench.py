"""MMBench (arXiv 2307.06281) as ChEF asks it (arXiv 2311.02692), from its table of 2023-07-12, the rotations of options included.

    mmbench_dev_20230712.tsv     index, question, hint, A .. E, answer, category, l2-category, image (base64)

Rows k 10^6 + i are question i with its options turned round k times. All rows of a question are one item: `mcq[item]` is the
circular accuracy (all right; chance 2.55 %), `mcq[vanilla]` that of the unturned rows (chance 27.57 %). The instruction {query:
{layout: mmbench, answer: letter}} prints hint, question and options as ChEF does.

MMBench-C: rows of `texts` (MMBench_C.json: query, gt_choices, gt_choice) take the places of the table's by position, pictures of
`pictures` are named by the row's position, `0.png`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of, tsv
from argus.core.formats.llava import records
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.published import Published, PublishedOptions
from argus.evaluation.scenarios.scienceqa import choices
from argus.evaluation.taxonomy import Dimension

TURNED = 1_000_000  # from here on, options are turned round
_PRINTED = re.compile(r"\s*(?:There are several options:|\(A\)).*", re.DOTALL)


class MMBenchOptions(PublishedOptions):
    """The table, and what is corrupted."""

    texts: Path | None = Field(None, description="rows of corrupted texts, by position")
    pictures: Path | None = Field(None, description="folder of corrupted pictures, named by position")


class MMBench(Published):
    """Reads the table."""

    Options = MMBenchOptions
    options: MMBenchOptions
    file_name = "mmbench_dev_20230712.tsv"
    id_name = "index"
    dimensions = (Dimension(1, "vanilla", ()), Dimension(2, "turned", ()))

    def asked(self) -> set[int]:
        return {1, 2}

    @cached_property
    def corrupted(self) -> list[tuple[Any, int] | DataError]:
        """The rows of corrupted texts."""
        return list(records(self.options.texts)) if self.options.texts else []

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        """A row as asked; `record` holds its position and what the table says."""
        one: Sample = record["row"]
        if one.target is None or not one.id.isdecimal():
            raise DataError("a row has a number and an answer", where=f"{where}, field 'answer'")
        if self.options.texts:
            one = self._reworded(one, record["position"], where)
        if self.options.pictures:
            shown = ImagePart(self.options.pictures / f"{record['position']}.png")
            one = replace(one, messages=[Message("user", [shown, TextPart(one.messages[0].text())])])
        known = one.metadata
        metadata = {
            "family": dimension.name,
            "domain": "mmbench",
            "branches": [known[name] for name in ("category", "l2-category") if known.get(name)],
            "item": str(int(one.id) % TURNED),
            "letter": ascii_uppercase[one.options.index(one.target or "")],
            "source": where,
            **({"hint": known["hint"]} if known.get("hint") else {}),
        }
        return replace(one, id=f"mmbench/{one.id}", metadata=metadata)

    def items(self) -> Iterator[Sample | DataError]:
        seen: set[str] = set()
        for position, found in enumerate(tsv.read(self.file)):
            if isinstance(found, DataError):
                yield found
                continue
            where = str(found.metadata["source"])
            try:
                if found.id in seen:
                    raise DataError(f"'{found.id}' stands twice", where=f"{where}, field 'index'")
                seen.add(found.id)
                turned = found.id.isdecimal() and int(found.id) >= TURNED
                yield self.sample({"row": found, "position": position}, self.dimensions[turned], where)
            except DataError as error:
                yield error

    def _reworded(self, one: Sample, position: int, where: str) -> Sample:
        if position >= len(self.corrupted):
            raise DataError(f"{self.options.texts} has no row {position}", where=where)
        found = self.corrupted[position]
        if isinstance(found, DataError):
            raise found
        record, line = found
        place = f"{self.options.texts}:{line}"
        options, right = choices(record, place)
        text = _PRINTED.sub("", field_of(record, "query", str, place))  # printed again by the instruction, a hint included
        parts = [p for p in one.messages[0].content if not isinstance(p, TextPart)]
        metadata = {key: value for key, value in one.metadata.items() if key != "hint"}
        return replace(
            one, messages=[Message("user", [*parts, TextPart(text)])], options=options, target=options[right], metadata=metadata
        )
