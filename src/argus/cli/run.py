"""`argus run`, `argus merge` and `argus report`."""

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
            "argus run recipes/papers/fastervlm.yaml --shards 4 --shard 0",
            "argus run recipes/papers/fastervlm.yaml --shards 4 --ray auto",
        )
    )(run)
    app.command(epilog=examples("argus merge runs/fastervlm/*"))(merge)
    app.command(
        epilog=examples(
            "argus report runs/quickstart/20260102-030405",
            "argus report runs/quickstart/20260102-030405 runs/mine/20260103-070809 --out comparison",
        )
    )(report)


def run(
    file: Annotated[Path, typer.Argument(help="the recipe, a YAML file or the slug of a paper")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="changes to the recipe, by dotted path")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="shrink samples and steps to a smoke run")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start anew instead of resuming an unfinished run")] = False,
    root: Annotated[Path, typer.Option(help="folder that run folders are made in")] = Path("runs"),
    shards: Annotated[int | None, typer.Option(min=1, help="split the evaluations into so many parts, see `argus merge`")] = None,
    shard: Annotated[int | None, typer.Option(min=0, help="which of the parts this process answers, from 0")] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="answer all parts on a Ray cluster and merge them: 'local' for this machine, 'auto' for the cluster it is in, "
            "or an address; every node must see the run folder and the folder of the command",
        ),
    ] = None,
) -> None:
    """Run a recipe and write its report.

    Trains, attaches, evaluates and judges the claims.
    The recipe is checked as a whole before anything runs. A run that was interrupted goes on where it was when the same
    command is given again.
    """
    from argus.core.errors import ArgusError
    from argus.runner.run import run as run_recipe

    quiet()
    if ray is not None:
        if shards is None or shard is not None:
            raise ArgusError("--ray needs --shards, and starts each shard itself", hint="For four: --shards 4 --ray auto")
        from argus.runner.on_ray import run_on_ray

        run_on_ray(file, changes or [], shards, ray, quick=quick, fresh=fresh, root=root)
        return
    if (shards is None) != (shard is None):
        raise ArgusError("--shards and --shard belong together", hint="For the first of four: --shards 4 --shard 0")
    if shards is None or shard is None:
        run_recipe(file, changes or [], quick=quick, fresh=fresh, root=root)
    else:
        from argus.runner.shards import run_shard

        run_shard(file, changes or [], shard, shards, quick=quick, fresh=fresh, root=root)


def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="the run folders of all shards; others are passed over")
    ],
) -> None:
    """Put the shards of a recipe together.

    Makes one run folder with the numbers and the report of one run.
    """
    from argus.runner.shards import merge as merge_shards

    quiet()
    merge_shards(folders)


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="a run folder; several are compared")],
    out: Annotated[Path, typer.Option(help="folder of the page that compares several runs")] = Path("comparison"),
) -> None:
    """Write the page of a run again, or compare several.

    The comparison holds a leaderboard, a radar by capability, paired differences, and the questions on which they differ or
    which most of them missed; a table beside it holds every question.
    """
    if len(folders) > 1:
        from argus.runner.compare import compare

        for path in compare(folders, out):
            typer.echo(path)
        return
    from argus.core.progress import console
    from argus.report.page import write_page
    from argus.report.summary import Summary
    from argus.report.tables import tables

    summary = Summary.load(folders[0])
    page = write_page(summary, folders[0])
    for table in tables(summary):
        console().print(table)
    typer.echo(page)
