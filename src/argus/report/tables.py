"""The run's tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from argus.core.claims import ClaimResult
from argus.report.page import baseline, table
from argus.report.summary import Evaluated, Summary

MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def tables(summary: Summary) -> Iterator[RenderableType]:
    """One table per evaluation, then the claims."""
    reference = baseline(summary)
    for evaluated in summary.evaluated:
        yield results(evaluated, reference)
    if summary.claims:
        yield claims(summary.claims)


def results(evaluated: Evaluated, reference: str | None) -> Grid:
    """Variants by metrics; the best of a column is starred, costs are followed by their ratio to `reference`'s."""
    shown = table(evaluated, reference)
    asked = f"{evaluated.questions:,} questions"
    aside = sum(evaluated.set_aside.values())
    grid = Grid(title=f"{evaluated.title}, {asked}" + (f", {aside:,} set aside" if aside else ""), title_justify="left", box=None)
    grid.add_column("variant", style="bold")
    for _, heading, better in shown.columns:
        grid.add_column(f"{heading} {'↑' if better == 'higher' else '↓'}", justify="right")
    for name, cells in shown.rows:
        row = []
        for cell in cells:
            text = Text(f"★ {cell.value}" if cell.best else cell.value, style="bold" if cell.best else "")
            text.append(f" {cell.ratio}" if cell.ratio else "", style="dim")
            row.append(text)
        grid.add_row(name, *row)
    for name, cells in shown.below:
        grid.add_row(name, *(cell.value for cell in cells), style="dim")
    return grid


def claims(judged: list[ClaimResult]) -> Grid:
    """Claims with a tick or a cross and the numbers put in."""
    grid = Grid(title="Claims", title_justify="left", box=None, show_header=False)
    for claim in judged:
        mark, colour = MARKS[claim.holds]
        grid.add_row(Text(mark, style=colour), Text(claim.claim), Text(claim.reason or claim.text, style="dim"))
    return grid
