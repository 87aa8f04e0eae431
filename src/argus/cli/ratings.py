"""`argus ratings`: an arena's votes become ratings."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from argus.cli.examples import examples


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=examples("argus ratings battles.jsonl", "argus ratings battles.jsonl --step 32 --both-bad drop --json"))(
        ratings
    )


def ratings(
    battles: Annotated[Path, typer.Argument(help='a line per vote: {"left": "a", "right": "b", "vote": "left"}')],
    step: Annotated[float, typer.Option(min=0.01, max=1000, help="K, the most that one vote moves a rating")] = 4.0,
    both_bad: Annotated[Literal["tie", "drop"], typer.Option(help="what a vote against both counts as")] = "tie",
    shuffles: Annotated[int, typer.Option(min=1, max=100_000, help="orders of the votes that are played")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print Elo ratings from an arena's votes.

    A rating depends on the order of the votes, so the median over shuffled orders is given, with the middle 95 % of them;
    below it stands how often each model beat each other one. Votes are left, right, tie and both bad.
    """
    from argus.core.errors import DataError
    from argus.evaluation.ratings import ratings as rate
    from argus.evaluation.ratings import read_battles, win_matrix

    votes = read_battles(battles)
    if not votes:
        raise DataError("there is no vote in it", where=str(battles))
    rows = rate(votes, step, both_bad=both_bad, shuffles=shuffles)
    names, cells = win_matrix(votes)
    met = {(a, b): float(cells[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if cells[i, j] >= 0}
    shares = {a: {b: met[a, b] for b in names if (a, b) in met} for a in names}
    if as_json:
        typer.echo(json.dumps({"ratings": [asdict(row) for row in rows], "wins": shares}, indent=1, ensure_ascii=False))
        return
    order = [row.model for row in rows]
    width = max([len("model"), *map(len, order)])
    typer.echo(f"{'model':{width}}  rating  95 % of orders     battles")
    for row in rows:
        typer.echo(f"{row.model:{width}}  {row.value:6.1f}  {row.low:6.1f} to {row.high:6.1f}  {row.battles:7,}")
    typer.echo("share of its battles with the one above that a model won")
    typer.echo("  ".join([" " * width, *(f"{name:>{max(5, len(name))}}" for name in order)]))
    for a in order:
        won = [f"{shares[a][b]:.2f}" if b in shares[a] else "-" for b in order]
        typer.echo("  ".join([f"{a:{width}}", *(f"{cell:>{max(5, len(b))}}" for cell, b in zip(won, order, strict=True))]))
