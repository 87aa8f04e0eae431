"""`argus recipe check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argus.cli.examples import examples

group = typer.Typer(name="recipe", help="Check recipes.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group)


@group.callback()
def about() -> None:
    """Check recipes."""


@group.command(
    epilog=examples("argus recipe check recipes/quickstart.yaml", "argus recipe check fastervlm evaluate.0.samples=100")
)
def check(
    file: Annotated[Path, typer.Argument(help="the recipe, a YAML file or the slug of a paper")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="changes to the recipe, by dotted path")
    ] = None,
) -> None:
    """Check everything in a recipe that can be checked without running it."""
    from argus.runner.plan import plan

    found = plan(file, changes or [])
    counts = (len(found.recipe.variants), len(found.evaluations), len(found.recipe.claims))
    typer.echo("{}: {} variants, {} evaluations, {} claims: fine".format(found.source.file, *counts))
