"""`argus export`: a finished run as other toolkits write theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argus.cli.examples import examples


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=examples("argus export runs/quickstart/20260102-030405 --to lmms-eval --out exported"))(export)


def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="the run folder of a finished run")],
    to: Annotated[str, typer.Option(help="whose layout: lmms-eval or vlmevalkit")],
    out: Annotated[Path, typer.Option(help="where the files go")] = Path("exported"),
) -> None:
    """Write a run as lmms-eval or VLMEvalKit would.

    Answers and numbers go into files of their layouts, which pandas reads too.
    """
    from argus.report.export import export as write

    for file in write(folder, to, out):
        typer.echo(file)
