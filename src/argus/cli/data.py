"""`argus data`: look into datasets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from argus.cli.examples import examples

FORMAT = "messages, llava, tsv or parquet; found out from the file if left out"
BAD = 1  # exit code when records could not be read

group = typer.Typer(name="data", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group)


@group.callback()
def about() -> None:
    """Check datasets."""


@group.command(epilog=examples("argus data check train.jsonl", "argus data check train.json --format llava --json"))
def check(
    path: Annotated[Path, typer.Argument(help="the dataset's file")],
    format: Annotated[str | None, typer.Option(help=FORMAT)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Read a whole dataset and say what is in it.

    Pictures are read too. Each bad record is listed with file, line and reason.
    Exits with 1 when records are bad.
    """
    from argus.core.formats import check as check_file

    found = check_file(path, format)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        turns = ", ".join(f"{count:,} {role}" for role, count in found.roles.items())
        typer.echo(f"{path}: {found.format}")
        typer.echo(f"samples          {found.good:,}")
        typer.echo(f"turns            {turns or 'none'}")
        typer.echo(f"pictures         {found.pictures:,}")
        typer.echo(f"longest answer   {found.longest_answer:,} characters")
        typer.echo(f"cannot be read   {found.bad:,}")
        for error in found.errors:
            typer.echo(f"  {error}")
        if found.bad > len(found.errors):
            typer.echo(f"  and {found.bad - len(found.errors):,} more")
    if found.bad:
        raise typer.Exit(BAD)
