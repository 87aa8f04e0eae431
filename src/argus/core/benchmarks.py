"""The index of benchmarks: a card each, by the survey's taxonomy (MME-Survey, arXiv 2411.15296).

A card says what is asked, how it was made and how it is judged. Scores of several benchmarks meet on one scale,

    s' = (s - chance) / (best - chance)          0: guessing, 1: all that can be reached

averaged with equal weight per benchmark in a leaf and per leaf in a branch, never without the number of benchmarks behind it.
What reads a benchmark, its twin in the world and what an audit found about it are derived from components, recipes and records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from argus.core.errors import UnknownNameError, UnsupportedError, nearest
from argus.core.recipe import find_recipe
from argus.core.registry import components

SMALL, MEDIUM = 3_000, 10_000  # most questions of these cost classes
SEVERAL = {"multi-image", "video", "interleaved"}  # inputs of more than one picture
TWIN = "_world"  # how scenarios end that draw a benchmark anew; they read nothing
Cost = Literal["any", "small", "medium", "large", "judged"]


class Card(BaseModel):
    """What is known of a benchmark without running it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(description="its name")
    leaves: list[str] = Field(min_length=1, description="what of the taxonomy it measures")
    input: list[Literal["image", "multi-image", "video", "interleaved"]] = Field(min_length=1, description="what goes in")
    turns: Literal["single", "multi"] = Field(description="whether a dialogue has several questions")
    items: int | None = Field(ge=1, description="questions; null where there is no fixed number")
    answer: Literal["choice", "yes-no", "short answer", "open", "grounding", "generation"] = Field(description="what comes out")
    language: list[str] = Field(min_length=1, description="languages of its questions")
    source: Literal["reused", "new", "rendered", "private"] = Field(description="where its pictures come from")
    annotation: str = Field(description="who knows the answers")
    judge: Literal["script", "model", "human"] = Field(description="who says whether an answer is right")
    metric: str = Field(description="its score")
    better: Literal["higher", "lower"] = Field(description="which scores are better")
    chance: float | None = Field(description="what guessing scores; null where it is not known")
    best: float = Field(description="what is scored at most")

    def cost(self) -> Cost:
        """How much a run costs: `judged` asks a second model; several pictures per question count as a size more."""
        if self.judge != "script":
            return "judged"
        if self.items is None:
            return "any"
        size = (self.items > SMALL) + (self.items > MEDIUM) + bool(SEVERAL & set(self.input))
        return ("small", "medium", "large")[min(2, size)]

    def normalised(self, score: float) -> float:
        """A score on the common scale: 0 is guessing, 1 the best.

        Raises:
            UnsupportedError: nobody knows what guessing scores.
        """
        if self.chance is None:
            raise UnsupportedError(f"what guessing scores in {self.title} is not known, so its scores are on no common scale")
        return (score - self.chance) / (self.best - self.chance)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A card with what Argus has for it.

    Args:
        reader: the scenario that reads its published files.
        measured_by: components that belong to it.
        twin: the recipe of its protocol on the world.
        audit: what an audit found, if one was recorded.
    """

    name: str
    card: Card
    reader: str | None
    measured_by: list[str]
    twin: str | None
    audit: dict[str, Any] | None


@cache
def _index() -> dict[str, Any]:
    return yaml.safe_load((files("argus.core") / "benchmarks.yaml").read_text(encoding="utf-8"))


def taxonomy() -> dict[str, list[str]]:
    """Branch -> its leaves."""
    return _index()["taxonomy"]


def audits_folder() -> Path:
    """Where recorded audits are kept."""
    return Path(str(files("argus") / "results")) / "audits"


def benchmarks(leaves: Iterable[str] = ()) -> list[Benchmark]:
    """All benchmarks that carry every one of these leaves (or a leaf of these branches), by name.

    Raises:
        UnknownNameError: no such leaf or branch.
    """
    known = [leaf for of in taxonomy().values() for leaf in of]
    wanted = []
    for leaf in leaves:
        if leaf not in known and leaf not in taxonomy():
            raise UnknownNameError(f"the taxonomy has no '{leaf}'.", hint=nearest(leaf, [*known, *taxonomy()]))
        wanted.append(set(taxonomy().get(leaf, [leaf])))
    return [
        _benchmark(name) for name, row in sorted(_index()["benchmarks"].items()) if all(set(row["leaves"]) & w for w in wanted)
    ]


def benchmark(name: str) -> Benchmark:
    """One benchmark.

    Raises:
        UnknownNameError: no such name; the nearest is given.
    """
    if name not in _index()["benchmarks"]:
        raise UnknownNameError(f"there is no benchmark '{name}'.", hint=nearest(name, _index()["benchmarks"]))
    return _benchmark(name)


def readable() -> dict[str, str]:
    """Benchmark -> scenario that reads its download: its paper's, or the one of its name."""
    readers = {row.paper: row.name for row in components("scenario") if row.paper and not row.name.endswith(TWIN)}
    readers |= {row.name: row.name for row in components("scenario")}
    return {name: readers[name] for name in sorted(_index()["benchmarks"]) if name in readers}


def covering(leaves: Iterable[str]) -> list[str]:
    """A small set of benchmarks that together carry these leaves: always the one with most new leaves, cheap before dear."""
    left = set(leaves)
    order: tuple[Cost, ...] = ("any", "small", "medium", "large", "judged")
    known = [b for b in benchmarks() if left & set(b.card.leaves)]
    chosen = []
    while gain := [b for b in known if left & set(b.card.leaves)]:
        best = min(gain, key=lambda b: (-len(left & set(b.card.leaves)), order.index(b.card.cost()), b.name))
        chosen.append(best.name)
        left -= set(best.card.leaves)
    return chosen


def by_leaf(scores: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    """Leaf or branch -> mean normalised score and the number of benchmarks behind it.

    Args:
        scores: benchmark -> its score, on the scale of its metric.
    """
    found: dict[str, tuple[float, int]] = {}
    for branch, leaves in taxonomy().items():
        means, used = [], set()
        for leaf in leaves:
            here = [name for name in scores if leaf in benchmark(name).card.leaves]
            if here:
                found[leaf] = sum(benchmark(n).card.normalised(scores[n]) for n in here) / len(here), len(here)
                means.append(found[leaf][0])
                used |= set(here)
        if means:
            found[branch] = sum(means) / len(means), len(used)
    return found


def record_audit(name: str, audit: dict[str, Any]) -> Path:
    """Keep what an audit found about a benchmark."""
    benchmark(name)
    audits_folder().mkdir(parents=True, exist_ok=True)
    path = audits_folder() / f"{_file(name)}.json"
    path.write_text(json.dumps(audit, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _file(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _benchmark(name: str) -> Benchmark:
    own = [row for row in components() if row.paper == name]
    audit = audits_folder() / f"{_file(name)}.json"
    return Benchmark(
        name,
        Card.model_validate(_index()["benchmarks"][name]),
        readable().get(name),
        [f"{row.kind} {row.name}" for row in own],
        _twins().get(name),
        json.loads(audit.read_text(encoding="utf-8")) if audit.exists() else None,
    )


@cache
def _twins() -> dict[str, str]:
    """Benchmark -> the recipe of its protocol on the world; the world's own domains are theirs."""
    from argus.core.papers import papers

    found = {name: name for name in _index()["benchmarks"] if name.startswith("world/")}
    for paper in papers():
        if (
            paper.recipe
            and paper.slug in _index()["benchmarks"]
            and re.search(rf"world/|{TWIN}\b", find_recipe(paper.recipe).read_text(encoding="utf-8"))
        ):
            found[paper.slug] = paper.recipe
    return found
