"""`argus papers`: the catalogue, and what was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from argus.cli.examples import examples

if TYPE_CHECKING:
    from argus.core.papers import Paper

MARKS = {True: "✓", False: "✗", None: "?"}
group = typer.Typer(name="papers", invoke_without_command=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group)


@group.callback(epilog=examples("argus papers", "argus papers --json", "argus papers show fastervlm"))
def overview(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="print the list as JSON")] = False
) -> None:
    """List and show papers; record measurements."""
    if context.invoked_subcommand is None:
        list_(as_json=as_json)


@group.command("list", epilog=examples("argus papers list", "argus papers list --status measured", "argus papers list --json"))
def list_(
    status: Annotated[Literal["planned", "built", "measured"] | None, typer.Option(help="only these")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List papers with their state: measured (a recorded run), built (a component or recipe), planned."""
    from argus.core.papers import papers

    rows = [p for p in papers() if status in (None, p.status)]
    if as_json:
        typer.echo(json.dumps([asdict(p) for p in rows], indent=1, ensure_ascii=False))
        return
    width = max((len(p.slug) for p in rows), default=0)
    for p in rows:
        held = [c["holds"] for c in p.claims if "holds" in c]
        claims = f"  {sum(map(bool, held))} of {len(held)} claims hold" if held else ""
        note = f"  ({p.note})" if p.note else ""
        typer.echo(f"{p.status:9} {p.slug:{width}}  {p.title}{claims}{note}")


@group.command(epilog=examples("argus papers show fastervlm", "argus papers show fastervlm --json"))
def show(
    slug: Annotated[str, typer.Argument(help="the paper's short name, e.g. fastervlm")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show a paper: its components, its recipe, its claims and what was measured."""
    from argus.core.papers import paper

    found = paper(slug)
    typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False) if as_json else described(found))


@group.command(epilog=examples("argus papers record runs/fastervlm/20260102-030405"))
def record(folder: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run of the paper's recipe")]) -> None:
    """Keep the claims of a finished run as the paper's measurement in the catalogue."""
    from argus.core.errors import ArgusError
    from argus.core.papers import record_result
    from argus.core.run import Run

    run = Run.open(folder)
    if run.read_json("metrics.json").get("quick"):
        raise ArgusError("a quick run is a smoke test, not a measurement", where=str(folder), hint="Run it without --quick.")
    typer.echo(record_result(run))


@group.command(
    epilog=examples(
        "argus papers measure --dry-run",
        "argus papers measure",
        "argus papers measure fastervlm damro",
        "argus papers measure --stale --root /data/runs",
    )
)
def measure(
    slugs: Annotated[list[str] | None, typer.Argument(metavar="SLUG...", help="these systems; without, see the options")] = None,
    stale: Annotated[bool, typer.Option("--stale", help="only those recorded with earlier weights of a shipped model")] = False,
    unmeasured: Annotated[
        bool, typer.Option("--unmeasured", help="only those without a record of their claims as they are now")
    ] = False,
    root: Annotated[Path, typer.Option(help="folder that run folders and locks are made in")] = Path("runs"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the order and the minutes of the last record, no more")
    ] = False,
) -> None:
    """Run the recipes of systems one after another and record what they find.

    Without names, of all systems whose record is missing or made with earlier weights of a shipped model. A recipe that fails
    stops no other; which failed and why stands at the end, with exit code 1. Several processes of this command under one root
    share the work: each takes a recipe that no other has. One that was interrupted goes on when it is given again.
    """
    from argus.runner.measure import due, measure, overview

    jobs = due(slugs or (), stale=stale, unmeasured=unmeasured)
    if dry_run or not jobs:
        typer.echo(overview(jobs))
        return
    failed = measure(jobs, root)
    for recipe, reason in failed.items():
        typer.echo(f"failed: {recipe}: {reason}", err=True)
    if failed:
        raise typer.Exit(1)


def described(paper: Paper) -> str:
    """A paper as text."""
    lines = [f"{paper.name}: {paper.title}"]
    if paper.arxiv:
        lines.append(f"arXiv {paper.arxiv}")
    lines.append(f"{paper.status}" + (f" ({paper.note})" if paper.note else ""))
    lines += [f"component  {where}" for where in paper.where]
    if paper.recipe:
        lines.append(f"recipe     {paper.recipe}")
    for claim in paper.claims:
        lines.append(f"claim      {MARKS[claim['holds']] + ' ' if 'holds' in claim else ''}{claim['claim']}")
        lines += [f"             {claim['text']}"] if "holds" in claim else []
    lines += [f"{key:10} {value}" for key, value in (paper.measured or {}).items()]
    return "\n".join(lines)
