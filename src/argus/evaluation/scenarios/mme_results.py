"""MME's questions as they stand in result files of the official tool, to score what is said there (arXiv 2306.13394).

A folder holds one text file per task (`argus.core.formats.mme`). Ask with the inferencer {stored: {path: <the same folder>}},
which takes the answers from the files, and score with `mme_pairs`: a task is a family, and `mme_pairs[mean perception]` times
10, `mme_pairs[mean cognition]` times 4 are the published sums, of at most 2000 and 800. No picture is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from pydantic import Field

from argus.core.formats.mme import TASKS, MMELine, read_mme, task_files
from argus.core.registry import Options
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.scenarios.base import Group, Scenario, part


class MMEResultsOptions(Options):
    """Where the files are."""

    path: Path = Field(description="folder with one text file per task")


class MMEResults(Scenario):
    """Reads the tasks."""

    Options = MMEResultsOptions
    options: MMEResultsOptions

    def __init__(self, options: MMEResultsOptions) -> None:
        super().__init__(options)
        task_files(options.path)  # an empty folder is refused before anything runs

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        errors: dict[str, str] = {}
        chosen = part(read_mme(self.options.path), samples, seed, errors)
        for (task, picture), lines in groupby(chosen, key=lambda line: (line.task, line.picture)):
            yield Group(f"{task}/{picture}", [question(line) for line in lines])
        if errors:
            yield Group(f"{self.options.path}#unreadable", [], errors)


def question(line: MMELine) -> Sample:
    """A line as a question of yes or no."""
    picture = f"{line.task}/{line.picture}"
    metadata = {"family": line.task, "domain": "mme", "branches": [TASKS[line.task]], "picture": picture, "source": line.where}
    return Sample(line.id, [Message("user", [TextPart(line.question)])], line.truth, ["yes", "no"], metadata)
