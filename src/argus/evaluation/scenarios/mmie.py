"""MMIE's items (arXiv 2410.10139): questions in texts and pictures, and answers to be scored.

    benchmark    [{"id": "SA...", "conversations": [{"from": "human", "content": [{"text": ..., "image": path}]},
                                                    {"from": "gpt", "content": [...]}], "catagory": ..., "field": ...}, ...]
    to be scored [{"id": ..., "question": [{"text", "image"}], "answer": [{"text", "image"}] or "text", "model": ...,
                   "gt_answer": [{"text", "image"}]}, ...]

Texts and pictures may be null. Pictures lie in `images/` beside the file, or where their path says. The target is the
reference's text; of items to be scored it is the first text of `gt_answer`. Answers of items to be scored are taken by the
inferencer `given`. Numbers come by field and by category: SA 5,005, PBL 11,482 and MSR 3,616 items.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.formats.llava import records
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.scenarios.published import Published, PublishedOptions
from argus.evaluation.taxonomy import Dimension

NAMES = {"SA": "situational analysis", "PBL": "project-based learning", "MSR": "multi-step reasoning"}
ITEMS = {"SA": 5005, "PBL": 11482, "MSR": 3616}
CATEGORIES = tuple(Dimension(n, name, (), ITEMS[short]) for n, (short, name) in enumerate(NAMES.items()))


class MMIE(Published):
    """Reads the items."""

    Options = PublishedOptions
    options: PublishedOptions
    file_name = "mmie.json"
    id_name = "id"
    dimensions: ClassVar[tuple[Dimension, ...]] = CATEGORIES

    def records(self) -> Iterator[tuple[Any, int] | DataError]:
        return records(self.file)

    def asked(self) -> set[int]:
        return set(self.known)

    def dimension(self, record: dict[str, Any], where: str) -> Dimension:
        name = field_of(record, "id", str, where)
        for dimension, short in zip(CATEGORIES, NAMES, strict=True):
            if name.startswith(short):
                return dimension
        raise DataError(f"'{name}' begins with none of {', '.join(NAMES)}", where=f"{where}, field 'id'")

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        known = {
            "family": dimension.name,
            "domain": "mmie",
            "branches": [str(record["field"])] if record.get("field") else [],
            "source": where,
        }
        if "conversations" not in record:
            reference = self.parts(record.get("gt_answer") or [], f"{where}, field 'gt_answer'")
            target = reference[0].text if reference and isinstance(reference[0], TextPart) else None
            answer = field_of(record, "answer", (str, list), where)
            given = [TextPart(answer)] if isinstance(answer, str) else self.parts(answer, f"{where}, field 'answer'")
            asked = self.parts(field_of(record, "question", list, where), f"{where}, field 'question'")
            return Sample(record["id"], [Message("user", asked)], target, [], {**known, "given": given})
        said = field_of(record, "conversations", list, where)
        turns = {turn.get("from"): turn for turn in said if isinstance(turn, dict)}
        if set(turns) != {"human", "gpt"} or len(said) != len(turns):
            raise DataError("expected one turn of `human` and one of `gpt`", where=f"{where}, field 'conversations'")
        asked, reference = (
            self.parts(field_of(turns[who], "content", list, where), f"{where}, field 'conversations'")
            for who in ("human", "gpt")
        )
        target = " ".join(part.text for part in reference if isinstance(part, TextPart))
        return Sample(record["id"], [Message("user", asked)], target or None, [], known)

    def parts(self, given: list[Any], where: str) -> list[Part]:
        """Texts and pictures in their order."""
        found: list[Part] = []
        for one in given:
            if not isinstance(one, dict):
                raise DataError("a part is {text, image}", where=where)
            text, image = one.get("text"), one.get("image")
            found += [TextPart(str(text))] if text is not None else []
            found += [ImagePart(self.path_of(str(image)))] if image is not None else []
        return found

    def path_of(self, name: str) -> Path:
        """Where a picture lies."""
        beside = self.file.parent / name
        return beside if beside.exists() else self.file.parent / "images" / name
