"""What a scenario is: a stream of groups, each holding all questions about the same pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from argus.core import registry
from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.options import EvaluationOptions, Named, named


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
