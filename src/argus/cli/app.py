"""All commands, and what happens when one of them fails.

Commands import what they need when they run, so that help and completion are instant.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from argus import __version__
from argus.cli import (
    attention,
    audit,
    benchmarks,
    components,
    data,
    doctor,
    export,
    look,
    models,
    papers,
    ratings,
    recipe,
    run,
    world,
)
from argus.core.errors import ArgusError

FAILED, INTERRUPTED = 2, 130  # exit codes: something the user can fix; Ctrl-C, as shells have it


class Commands(TyperGroup):
    """The command group; errors that a user can fix become one clear message."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ArgusError as error:
            raise _failed(error.text()) from None
        except OSError as error:
            if error.filename is None or error.strerror is None:  # nothing that a user named
                raise
            raise _failed(f"{error.filename}: {error.strerror}") from None
        except KeyboardInterrupt as interrupt:
            typer.echo(str(interrupt) or "interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


def _failed(text: str) -> typer.Exit:
    """Says what went wrong."""
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(text, err=True)
    return typer.Exit(FAILED)


app = typer.Typer(
    cls=Commands,
    name="argus",
    help="A workbench for multimodal large language models: any technique, on any model, measured the same way.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of `--help`
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"argus {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A workbench for multimodal large language models: any technique, on any model, measured the same way."""


for part in (run, export, audit, recipe, papers, benchmarks, ratings, components, world, data, look, attention, models, doctor):
    part.register(app)
