"""Taxonomies of benchmarks: dimensions, the branches they belong to, and averages over a branch.

    pooled   sum of right answers / sum of items            (leaderboards' "Avg."; large dimensions decide)
    mean     mean over dimensions of their accuracies       (small dimensions count as much)

The two differ by several points where dimensions differ in size, so a number always says which one it is. An evaluation gives
both for every branch that its samples name in the metadata `branches`: `accuracy[image]` is pooled, `accuracy[mean image]` is
the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dimension:
    """A leaf of a taxonomy.

    Args:
        id: its number in the benchmark's files.
        name: as published.
        branches: what it counts in.
        items: how many items were published; None where the paper gives no number.
    """

    id: int
    name: str
    branches: tuple[str, ...]
    items: int | None = None


# SEED-Bench (arXiv 2307.16125), with the counts of the first release.
SEED_BENCH = tuple(
    Dimension(n, name, ("image" if n <= 9 else "video",), items)
    for n, (name, items) in enumerate(
        {
            "Scene Understanding": 3158,
            "Instance Identity": 1831,
            "Instance Attributes": 4649,
            "Instance Location": 978,
            "Instances Counting": 2447,
            "Spatial Relation": 657,
            "Instance Interaction": 97,
            "Visual Reasoning": 331,
            "Text Understanding": 85,
            "Action Recognition": 1740,
            "Action Prediction": 2077,
            "Procedure Understanding": 1192,
        }.items(),
        start=1,
    )
)

# SEED-Bench-2 (arXiv 2311.17092). Levels are cumulative: L2 holds L1. Counts: unique ids of the published predictions.
_V2 = (
    ("single", 1, "Scene Understanding", 3158),
    ("single", 2, "Instance Identity", 1831),
    ("single", 3, "Instance Attributes", 4648),
    ("single", 4, "Instance Location", 978),
    ("single", 5, "Instances Counting", 2447),
    ("single", 6, "Spatial Relation", 657),
    ("single", 7, "Instance Interaction", 97),
    ("single", 8, "Visual Reasoning", 331),
    ("single", 9, "Text Understanding", 435),
    ("single", 10, "Celebrity Recognition", 330),
    ("single", 11, "Landmark Recognition", 500),
    ("single", 12, "Chart Understanding", 497),
    ("single", 13, "Visual Referring Expression", 199),
    ("single", 14, "Science Knowledge", 277),
    ("single", 15, "Emotion Recognition", 501),
    ("single", 16, "Visual Mathematics", 132),
    ("multi", 17, "Difference Spotting", 497),
    ("multi", 18, "Meme Comprehension", 159),
    ("video", 19, "Global Video Understanding", 1584),
    ("video", 20, "Action Recognition", 1509),
    ("video", 21, "Action Prediction", 1225),
    ("video", 22, "Procedure Understanding", 1023),
    ("P2", 23, "In-Context Captioning", 120),
    ("P2", 24, "Interleaved Image-Text Analysis", 49),
    ("P3", 25, "Text-to-Image Generation", None),
    ("P3", 26, "Next Image Prediction", None),
    ("P3", 27, "Text-Image Creation", None),
)
LEVELS = ("L1", "L2", "L3")  # L0 is text to text, L4 free interleaving both ways; the benchmark tests neither


def level_of(dimension: int) -> str:
    """The level of a SEED-Bench-2 dimension."""
    return "L1" if dimension <= 22 else "L2" if dimension <= 24 else "L3"


def _branches(part: str, number: int) -> tuple[str, ...]:
    """Part and levels of a dimension; level L1 is the part P1, so that it has one name."""
    of_p1 = ("P1",) if number <= 22 else ()
    return (*of_p1, part, *LEVELS[max(1, LEVELS.index(level_of(number))) :])


SEED_BENCH_2 = tuple(Dimension(number, name, _branches(part, number), items) for part, number, name, items in _V2)


def members(dimensions: Iterable[Dimension]) -> dict[str, list[str]]:
    """Branch -> names of its dimensions."""
    found: dict[str, list[str]] = {}
    for dimension in dimensions:
        for branch in dimension.branches:
            found.setdefault(branch, []).append(dimension.name)
    return found


def pooled(right: Mapping[str, float], items: Mapping[str, int], names: Iterable[str]) -> float:
    """Accuracy over all items of some dimensions.

    Args:
        right: dimension -> accuracy (in any unit).
        items: dimension -> number of items.
    """
    of = list(names)
    return sum(right[n] * items[n] for n in of) / sum(items[n] for n in of)


def unweighted(right: Mapping[str, float], names: Iterable[str]) -> float:
    """Mean over some dimensions of their accuracies."""
    of = list(names)
    return sum(right[n] for n in of) / len(of)
