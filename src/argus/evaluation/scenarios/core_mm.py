"""CORE-MM's items (arXiv 2311.11567; later InfiMM-Eval): open questions about one or several pictures, with reference steps.

    core_mm.json    {"1": {"images": [path, ...], "question": ..., "answer": ..., "steps": [text, ...],
                           "reasoning_type": "Deductive", "complexity": "High", "counter_intuitive": false}, ...}

or a list whose items have an `id`.

The whole set has 279 items over 342 pictures: 181 deductive, 49 abductive, 49 analogical; 171 moderate, 108 high. Its answers
and steps were withheld for part of the time and no names of their fields were published, so these are ours. An item without
answer or steps is asked, and no judge applies to it; its responses are what `argus` keeps for the authors. Pictures are shown
in their order, in front of the question. Numbers come by kind of reasoning and by complexity; how they are weighted is the
judge's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from argus.core.errors import DataError, nearest
from argus.core.formats import field_of
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.mmdu import entries
from argus.evaluation.scenarios.published import Published, PublishedOptions
from argus.evaluation.taxonomy import Dimension

KINDS = tuple(
    Dimension(n, name, (), items) for n, (name, items) in enumerate({"Deductive": 181, "Abductive": 49, "Analogical": 49}.items())
)
COMPLEXITIES = ("Moderate", "High")


class CoreMMOptions(PublishedOptions):
    """The download, and how it is asked."""

    prompt: str = Field(
        "{question}\nThink step by step and give the final answer behind the word Answer.",
        pattern=r"\{question\}",
        description="how a question is asked; the paper asks for the thinking, too",
    )
    complexity: Literal["all", "Moderate", "High"] = Field("all", description="which items are asked")


class CoreMM(Published):
    """Reads the items."""

    Options = CoreMMOptions
    options: CoreMMOptions
    file_name = "core_mm.json"
    id_name = "id"
    dimensions: ClassVar[tuple[Dimension, ...]] = KINDS

    def records(self) -> Iterator[tuple[Any, int] | DataError]:
        for name, record, line in entries(self.file):
            yield (
                record
                if isinstance(record, DataError)
                else ({**record, "id": name} if isinstance(record, dict) else record, line)
            )

    def asked(self) -> set[int]:
        return set(self.known)

    def dimension(self, record: dict[str, Any], where: str) -> Dimension:
        kind = field_of(record, "reasoning_type", str, where)
        return KINDS[_one_of(kind, [d.name for d in KINDS], f"{where}, field 'reasoning_type'")]

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample | None:
        given = field_of(record, "complexity", str, where)
        complexity = COMPLEXITIES[_one_of(given, COMPLEXITIES, f"{where}, field 'complexity'")]
        if self.options.complexity not in ("all", complexity):
            return None
        question = field_of(record, "question", str, where)
        paths = _texts(record, "images", where)
        if not paths:
            raise DataError("an item shows at least one picture", where=f"{where}, field 'images'")
        answer = record.get("answer")
        if answer is not None and not isinstance(answer, str):
            raise DataError(f"an answer is a text, not {type(answer).__name__}", where=f"{where}, field 'answer'")
        text = self.options.prompt.replace("{question}", question)
        message = Message("user", [*(ImagePart(self.file.parent / Path(path)) for path in paths), TextPart(text)])
        known = {
            "family": dimension.name,
            "domain": "core-mm",
            "steps": _texts(record, "steps", where) if record.get("steps") is not None else [],
            "complexity": complexity,
            "counter_intuitive": bool(record.get("counter_intuitive", False)),
            "source": where,
        }
        return Sample(str(record["id"]), [message], answer, [], known)


def _one_of(given: str, names: list[str] | tuple[str, ...], where: str) -> int:
    """The place of a name, however it is capitalised.

    Raises:
        DataError: it is none of them.
    """
    for place, name in enumerate(names):
        if name.lower() == given.strip().lower():
            return place
    raise DataError(f"'{given}' is none of {', '.join(names)}.", where=where, hint=nearest(given, names))


def _texts(record: dict[str, Any], name: str, where: str) -> list[str]:
    found = field_of(record, name, list, where)
    if not all(isinstance(one, str) and one for one in found):
        raise DataError("expected a list of texts", where=f"{where}, field '{name}'")
    return found
