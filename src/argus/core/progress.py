"""The one place for progress and console output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
QUIET_SECONDS = 15.0  # between lines where there is no terminal


@cache
def console() -> Console:
    """This process's console, as wide as its terminal or 160 columns in a file; of several processes, the first one speaks."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, quiet=os.environ.get("RANK", "0") != "0")


def track(items: Iterable[T], description: str, *, total: int | None = None, unit: str = "samples") -> Iterator[T]:
    """Yield items and show how far it is: a bar with rate and time left on a terminal, a line now and then elsewhere.

    Args:
        items: what is worked through.
        description: what is being done.
        total: how many there are, if known and `items` has no length.
        unit: what is counted.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    yield from (_bar if console().is_terminal else _lines)(items, description, total, unit)


def _bar(items: Iterable[T], description: str, total: int | None, unit: str) -> Iterator[T]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=console(), transient=True) as progress:
        task = progress.add_task(description, total=total, rate="")
        for done, item in enumerate(items, start=1):
            yield item
            rate = done / max(time.monotonic() - start, 1e-9)
            progress.update(task, advance=1, rate=f"{rate:.1f} {unit}/s")


def _lines(items: Iterable[T], description: str, total: int | None, unit: str) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > QUIET_SECONDS:
            of = f"/{total}" if total else ""
            console().print(f"{description}: {done}{of} {unit}, {done / (now - start):.1f} {unit}/s", highlight=False)
            last = now
