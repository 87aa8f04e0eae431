"""What a scenario is: a stream of groups, each holding all questions about the same pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, TypeVar

from argus.core import registry
from argus.core.errors import DataError
from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.options import EvaluationOptions, Named, named

T = TypeVar("T")


@dataclass(slots=True)
class Group:
    """Questions about the same pictures.

    Args:
        id: the pictures' name; scores are clustered by it.
        samples: one question each, showing the same pictures in the same order. Metadata `family` and `domain` name the
            rows that a question counts in.
        errors: id -> reason, for questions that could not be read.
    """

    id: str
    samples: list[Sample]
    errors: dict[str, str] = field(default_factory=dict)


def set_aside(errors: dict[str, str], error: DataError) -> None:
    """Note an item that cannot be read: place -> reason. Several of one place, as in a file of one line, are told apart."""
    place = error.where or "somewhere"
    errors[f"{place} ({len(errors) + 1})" if place in errors else place] = error.message


def part(items: Iterable[T | DataError], samples: int | None, seed: int, errors: dict[str, str]) -> Iterator[T]:
    """The `samples` readable items of part `seed`; what cannot be read up to there is set aside in `errors`."""

    def readable() -> Iterator[T]:
        for item in items:
            if isinstance(item, DataError):
                set_aside(errors, item)
            else:
                yield item

    first = seed * samples if samples is not None else 0
    return islice(readable(), first, None if samples is None else first + samples)


class Scenario(ABC):
    """The same (samples, seed) gives the same groups in the same order; few of them are in memory at once."""

    Options: ClassVar[type[registry.Options]]

    def __init__(self, options: registry.Options) -> None:
        self.options = options

    @abstractmethod
    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        """Groups with `samples` questions in total (the last group may be cut short).

        Args:
            samples: number of questions; None for all.
            seed: which part of the scenario; 0 is the standard one.
        """


def build_scenario(options: EvaluationOptions) -> Scenario:
    """The scenario an evaluation names; `world/objects` means the component `world` with `domain: objects`."""
    return scenario_of(options.scenario)


def scenario_of(given_name: Named) -> Scenario:
    """The scenario of a recipe's line, `world/objects` or {name: {options}}."""
    name, given = named(given_name)
    name, slash, domain = name.partition("/")
    return build("scenario", name, {"domain": domain, **given} if slash else given)
