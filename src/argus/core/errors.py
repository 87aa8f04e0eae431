"""Errors that name what was wrong, where, and the nearest right thing.

Every error a user can cause is an `ArgusError`. The command line prints it without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ArgusError(Exception):
    """A problem the user can fix.

    Args:
        message: what was wrong, in one sentence.
        where: the place: `recipe.yaml:12`, `data.jsonl:341, field 'messages'`, a folder, a model name.
        hint: what to do, for instance the nearest valid name.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.message, self.where, self.hint = message, where, hint
        super().__init__(self.text())

    def text(self) -> str:
        """The full message: `where: message (hint)`."""
        head = f"{self.where}: " if self.where else ""
        tail = f" {self.hint}" if self.hint else ""
        return f"{head}{self.message}{tail}"


class RecipeError(ArgusError):
    """A recipe that cannot be run as written."""


class DataError(ArgusError):
    """A record or file that cannot be read as a sample."""


class ModelError(ArgusError):
    """A model that cannot be found, loaded or used."""


class UnknownNameError(ArgusError):
    """A name that is not in the registry, the recipe or the model."""


class UnsupportedError(ArgusError):
    """A combination that cannot work, refused before anything runs, with the reason."""


class LockedError(ArgusError):
    """Something that another process, which is alive, works on."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that names the nearest valid name and, when there are few, all of them.

    >>> nearest("fastervml", ["fastervlm", "fastv"])
    "Did you mean 'fastervlm'? Valid: fastervlm, fastv."
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    first = f"Did you mean '{close[0]}'? " if close else ""
    listed = ", ".join(names) if len(names) <= 24 else f"{len(names)} names, for instance {', '.join(names[:8])}"
    return f"{first}Valid: {listed}." if names else "There is none yet."
