"""PASCAL VOC 2012 as ChEF asks it (arXiv 2311.02692): first which classes are there, then where.

    meta_file/Detection_VOC2012.json     {"image": ..., "object": [{"label": "cat", "bbox": [x1, y1, x2, y2]}, ...]}, 0..1

    Which object is in the picture?   a cat / a boat / a sofa / a bus         once per class that is there
    Where is the cat?                 [0.1, 0.25, 0.5, 1.0] / ...             once per gold box

Wrong classes are three that are not in the picture. Wrong boxes are draws around every box of the picture: scaled by U(0.5,
1.5) about the centre, shifted by up to half its unscaled sides, cut at 0 and 1, and kept where the IoU with all gold boxes of
the class is at most 0.5; where three do not remain, boxes anywhere are drawn under the same test. The metric is `detection`.

Boxes are written with two decimals, `1.0` for `1.00`; `boxes: shikra` names the class and has three decimals, `boxes: kosmos`
the two patches of a grid of 32 x 32 that the corners lie in. ChEF's written form stops after the first class that it names
rightly; here every turn is asked, written or chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Any, Literal

from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.sample import Sample
from argus.evaluation.metrics.iou import Box, iou
from argus.evaluation.scenarios.meta_file import MetaFile, MetaFileOptions
from argus.evaluation.taxonomy import Dimension

WRONG, OVERLAP, GRID = 3, 0.5, 32
TRIES = 10_000  # boxes anywhere; where all of them overlap, gold fills the picture


class VOC2012Options(MetaFileOptions):
    """The download, and how boxes are written."""

    boxes: Literal["numbers", "shikra", "kosmos"] = Field("numbers", description="form of a box")


class VOC2012(MetaFile):
    """Reads Detection_VOC2012.json."""

    Options = VOC2012Options
    options: VOC2012Options
    file_name = "meta_file/Detection_VOC2012.json"
    benchmark = "voc2012"
    dimensions = (Dimension(1, "class", ()), Dimension(2, "box", ()))

    @cached_property
    def classes(self) -> list[str]:
        """All classes of the set."""
        rows = (found[0] for found in self.records() if not isinstance(found, DataError))
        lists = (row.get("object") for row in rows if isinstance(row, dict))
        things = (thing for of in lists if isinstance(of, list) for thing in of)  # other rows are set aside where they are asked
        return sorted({thing["label"] for thing in things if isinstance(thing, dict) and isinstance(thing.get("label"), str)})

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample | None:
        return next(iter(self.samples(record, dimension, where)), None)

    def samples(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sequence[Sample]:
        gold = _gold(record, where)
        lot, item = self.lot(record), f"{self.benchmark}/{record['id']}"
        absent = [name for name in self.classes if name not in gold]
        if len(absent) < WRONG:
            raise DataError(f"only {len(absent)} of the set's classes are not in the picture", where=where)
        turns = []
        for name in gold:
            options = [_indefinite(one) for one in (name, *lot.sample(absent, WRONG))]
            text = "Which object is in the picture?"
            of_class: dict[str, Any] = {"family": "class", "class": name, "item": item}
            turns.append(self.asked_about(record, where, text, options[0], _shuffled(options, lot), f"/{name}", **of_class))
        every = [box for boxes in gold.values() for box in boxes]
        for name, own in gold.items():
            wrong = wrong_boxes(own, every, lot, where)
            for number, box in enumerate(own):
                boxes = _shuffled([box, *lot.sample(wrong, WRONG)], lot)
                known: dict[str, Any] = {"family": "box", "class": name, "item": item, "gold": own, "boxes": boxes}
                written = [self.written(one, name) for one in boxes]
                text, right = f"Where is the {name}?", self.written(box, name)
                turns.append(self.asked_about(record, where, text, right, written, f"/{name}/{number}", **known))
        return turns

    def written(self, box: Box, name: str) -> str:
        """A box as the options have it."""
        match self.options.boxes:
            case "shikra":
                return f"{name}[{','.join(f'{v:.3f}' for v in box)}]"
            case "kosmos":
                return f"<object>{_patch(*box[:2])}{_patch(*box[2:])}</object>"
            case _:
                return "[" + ", ".join(f"{v:.2f}".removesuffix("0") for v in box) + "]"


def wrong_boxes(gold: Sequence[Box], every: Sequence[Box], lot: Random, where: str = "") -> list[Box]:
    """At least three boxes that hit no gold one.

    Raises:
        DataError: the gold boxes leave no room for one.
    """

    def misses(box: Box) -> bool:
        return box[0] < box[2] and box[1] < box[3] and all(iou(one, box) <= OVERLAP for one in gold)

    found = [box for one in every for box in [moved(one, lot) for _ in range(WRONG)] if misses(box)]
    for _ in range(TRIES):
        if len(found) >= WRONG:
            return found
        box = anywhere(lot)
        found += [box] if misses(box) else []
    raise DataError("the gold boxes leave no room for a wrong one", where=f"{where}, field 'object'")


def moved(box: Box, lot: Random) -> Box:
    """A box near another one."""
    x1, y1, x2, y2 = box
    w, h, scale = x2 - x1, y2 - y1, lot.uniform(0.5, 1.5)
    x, y = (x1 + x2) / 2 + lot.uniform(-w / 2, w / 2), (y1 + y2) / 2 + lot.uniform(-h / 2, h / 2)
    return _cut(x, y, w * scale, h * scale)


def anywhere(lot: Random) -> Box:
    """A box with a centre and sides by lot."""
    return _cut(lot.random(), lot.random(), lot.random(), lot.random())


def _cut(x: float, y: float, w: float, h: float) -> Box:
    return max(0.0, x - w / 2), max(0.0, y - h / 2), min(1.0, x + w / 2), min(1.0, y + h / 2)


def _gold(record: dict[str, Any], where: str) -> dict[str, list[Box]]:
    """Class -> its boxes, in their order."""
    place = f"{where}, field 'object'"
    found: dict[str, list[Box]] = {}
    for thing in field_of(record, "object", list, place):
        box = field_of(thing, "bbox", list, place)
        if (
            len(box) != 4
            or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in box)
            or box[0] >= box[2]
            or box[1] >= box[3]
        ):
            raise DataError(f"{box} is no box x1, y1, x2, y2 of 0..1", where=place)
        found.setdefault(field_of(thing, "label", str, place), []).append(tuple(map(float, box)))  # type: ignore[arg-type]
    if not found:
        raise DataError("there is no object", where=place)
    return found


def _indefinite(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _shuffled(items: list, lot: Random) -> list:
    return lot.sample(items, len(items))


def _patch(x: float, y: float) -> str:
    column, row = (min(GRID - 1, int(v * GRID)) for v in (x, y))
    return f"<patch_index_{row * GRID + column:04d}>"
