"""`argus run` and `argus report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argus.cli.examples import examples
from argus.cli.quiet import quiet


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "argus run recipes/quickstart.yaml",
            "argus run recipes/quickstart.yaml --quick",
            "argus run recipes/papers/fastervlm.yaml model.from=llava-hf/llava-1.5-7b-hf",
            "argus run recipes/papers/fastervlm.yaml evaluate.0.samples=500",
        )
    )(run)
    app.command(epilog=examples("argus report runs/quickstart-20260102-030405"))(report)


def run(
    file: Annotated[Path, typer.Argument(help="the recipe, a YAML file or the slug of a paper")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="changes to the recipe, by dotted path")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="shrink samples and steps to a smoke run")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start anew instead of resuming an unfinished run")] = False,
    root: Annotated[Path, typer.Option(help="folder that run folders are made in")] = Path("runs"),
) -> None:
    """Run a recipe and write its report.

    Trains, attaches, evaluates and judges the claims.
    The recipe is checked as a whole before anything runs. A run that was interrupted goes on where it was when the same
    command is given again.
    """
    from argus.runner.run import run as run_recipe

    quiet()
    run_recipe(file, changes or [], quick=quick, fresh=fresh, root=root)


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
) -> None:
    """Write the page of a finished run again."""
    from argus.core.progress import console
    from argus.report.page import write_page
    from argus.report.summary import Summary
    from argus.report.tables import tables

    summary = Summary.load(folder)
    page = write_page(summary, folder)
    for table in tables(summary):
        console().print(table)
    typer.echo(page)
