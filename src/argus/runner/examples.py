"""Examples for the report: the same questions as every variant answered them, with what each kept of the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from argus.core.errors import ArgusError
from argus.core.images import load_image
from argus.evaluation.engine import build_instructions
from argus.evaluation.inferencers.base import Question
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.scenarios.base import build_scenario
from argus.methods.attached import Attached
from argus.report.overlay import lit, way
from argus.report.seen import seen
from argus.report.summary import Example, Reply

CANDIDATES = 3  # pictures looked at per example shown, to choose the telling ones from
SIDE = 288  # pixels of a shown picture's longer side, at least


def candidates(options: EvaluationOptions, seed: int) -> Iterator[Question]:
    """The first question of each of the first pictures, as the evaluation asks it; what cannot be read is left out."""
    instructions = build_instructions(options)
    groups = build_scenario(options).groups(options.samples, seed)
    for group in islice(groups, CANDIDATES * options.examples):
        try:
            sample = reduce(lambda s, i: i.apply(s), instructions, group.samples[0]) if group.samples else None
            images = [load_image(image) for image in sample.images()] if sample else []
        except ArgusError:
            continue  # it has a record with the reason
        if sample and images:
            yield Question(group.id, sample, images)


def left(model: Any, processor: Any, asked: Iterable[Question], attachments: Sequence[Attached]) -> dict[str, dict[str, Any]]:
    """Question -> what techniques left of its picture: `indices`, `grid`, `kept`, `total`. Empty without techniques."""
    found = {}
    for question in asked if attachments else ():
        view = seen(model, processor, question, attachments)
        if view is not None:
            found[question.sample.id] = {"indices": view.indices, "grid": view.grid, "kept": view.kept, "total": view.total}
    return found


def choose(asked: Sequence[Question], answers: Mapping[str, Mapping[str, Any]], count: int) -> list[Question]:
    """The most telling questions: first those on which variants differ, then the rest, one family after the other.

    Args:
        asked: the candidates.
        answers: variant -> question -> its record.
        count: how many to choose.
    """

    def differ(question: Question) -> bool:
        return len({records[question.sample.id]["correct"] for records in answers.values()}) > 1

    known = [q for q in asked if all("correct" in records.get(q.sample.id, {}) for records in answers.values())]
    chosen: list[Question] = []
    for told in (True, False):
        rest = [q for q in known if differ(q) == told]
        while rest and len(chosen) < count:
            families = [q.sample.metadata.get("family") for q in chosen]
            rest.sort(key=lambda q: families.count(q.sample.metadata.get("family")))  # stable: else in their order
            chosen.append(rest.pop(0))
    return chosen


def draw(
    chosen: Sequence[Question],
    answers: Mapping[str, Mapping[str, Any]],
    views: Mapping[str, Mapping[str, Any]],
    folder: Path,
    name: str,
) -> list[Example]:
    """Write the pictures of examples into `pictures/` of a run folder.

    Args:
        chosen: the questions.
        answers: variant -> question -> its record.
        views: variant -> question -> what its techniques left of the picture.
        folder: the run folder.
        name: the evaluation, for file names.
    """
    (folder / "pictures").mkdir(exist_ok=True)
    examples = []
    for number, question in enumerate(chosen):
        id_, picture = question.sample.id, question.images[-1]  # examples that are shown to the model come before it
        scale = max(1, -(-SIDE // max(picture.size)))
        plain = Path("pictures") / f"{name}-{number}.png"
        picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(folder / plain)
        replies = []
        for variant, records in answers.items():
            record, view = records[id_], views.get(variant, {}).get(id_)
            reply = Reply(variant, record["answer"], record["correct"])
            if view:
                path = Path("pictures") / f"{name}-{number}-{variant}.png"
                lit(picture, view["indices"], tuple(view["grid"]), scale).save(folder / path)
                reply.picture, reply.kept, reply.total = str(path), view["kept"], view["total"]
            elif searched := record.get("search"):
                path = Path("pictures") / f"{name}-{number}-{variant}.png"
                way(picture, searched["visited"], searched["boxes"], scale).save(folder / path)
                reply.picture = str(path)
            replies.append(reply)
        text = question.sample.messages[-1].text()
        examples.append(Example(id_, text, question.sample.target or "", str(plain), replies))
    return examples
