"""What a run found, as one value: the source of its tables, plots and page, stored as `metrics.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from argus.core.claims import ClaimResult
from argus.core.errors import DataError
from argus.evaluation.statistics import Measurement

FILE = "metrics.json"
ALL, BLIND = "all", "blind"  # groups of a measurement: every question; every question without its picture


@dataclass(slots=True)
class Variant:
    """One thing that was compared.

    Args:
        name: as in the recipe.
        technique: what it adds to the model, e.g. `fastervlm`; variants of one technique form one line in plots. Empty
            for the model as it is.
        changes: every difference from the recipe's model line, in words.
    """

    name: str
    technique: str = ""
    changes: str = ""


@dataclass(slots=True)
class Result:
    """What one variant reached in one evaluation.

    Args:
        measurements: metric -> group -> measurement. Groups are `all`, families of questions, `blind` (asked without
            pictures) and a cost metric's own parts.
        seconds: time spent answering.
    """

    variant: str
    measurements: dict[str, dict[str, Measurement]]
    seconds: float = 0.0

    @property
    def metrics(self) -> dict[str, Measurement]:
        """Metric -> measurement over all questions."""
        return {metric: groups[ALL] for metric, groups in self.measurements.items() if ALL in groups}


@dataclass(slots=True)
class Reply:
    """One variant's answer to an example.

    Args:
        score: points of the first metric, 1 for right and 0 for wrong; None where it gives none per question.
        picture: file, relative to the run folder, of the picture with what was kept; empty if everything was.
        kept: visual tokens kept.
        total: visual tokens there were.
    """

    variant: str
    answer: str
    score: float | None
    picture: str = ""
    kept: int | None = None
    total: int | None = None


@dataclass(slots=True)
class Example:
    """A question as every variant answered it."""

    id: str
    question: str
    target: str
    picture: str
    replies: list[Reply]


@dataclass(slots=True)
class Evaluated:
    """One evaluation of the recipe, for all variants.

    Args:
        name: as claims name it, e.g. `objects`.
        title: for people, e.g. `world/objects`.
        questions: asked per variant.
        better: metric -> `higher` or `lower`.
        set_aside: why questions could not be asked or answered -> how many, in the variant with most of them.
        chance: group -> accuracy of blind guessing: `all`, and each family of questions.
        seed: which part of the scenario was asked.
        examples: some questions, as every variant answered them.
    """

    name: str
    title: str
    questions: int
    results: list[Result]
    better: dict[str, str]
    set_aside: dict[str, int] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def families(self) -> list[str]:
        """The families of questions, in the order met."""
        return [group for group in self.chance if group != ALL]


@dataclass(slots=True)
class Trained:
    """One training stage of one variant: its figures in words, and its log."""

    variant: str
    stage: str
    figures: dict[str, str]
    log: list[dict[str, Any]]


@dataclass(slots=True)
class Summary:
    """Everything a report says.

    Args:
        name, description, paper: what the recipe says of itself.
        model: the recipe's model line in words.
        command: what to type to run it again.
        variants, evaluated, trained, claims: what was compared, what was found, what was learned, what was claimed.
        measured: every number by the name that claims use.
        recipe: the recipe as it was run, YAML.
        finished: date and time.
        seconds: from the first start to the end.
        quick: the run was shrunk to a smoke test.
        environment: versions, commit, machine.
    """

    name: str
    model: str
    command: str
    variants: list[Variant]
    evaluated: list[Evaluated]
    claims: list[ClaimResult] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    trained: list[Trained] = field(default_factory=list)
    description: str = ""
    paper: str = ""
    recipe: str = ""
    finished: str = ""
    seconds: float = 0.0
    quick: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Write `metrics.json` into a run folder, all at once or not at all."""
        part = folder / f"{FILE}.part"
        part.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")
        return part.replace(folder / FILE)

    @staticmethod
    def load(folder: Path) -> Summary:
        """Read a run folder's `metrics.json`.

        Raises:
            DataError: it is missing, or not what `save` writes.
        """
        path = folder / FILE
        if not path.is_file():
            raise DataError(
                f"this run has no {FILE}, so it has not finished.",
                where=str(folder),
                hint="Start the same command again.",
            )
        try:
            return _ADAPTER.validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{first['msg']} at {'.'.join(map(str, first['loc']))}", where=str(path)) from None


_ADAPTER = TypeAdapter(Summary)
