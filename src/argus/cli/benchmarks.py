"""`argus benchmarks`: what can be measured, at what cost, and what is known of each benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from argus.cli.examples import examples
from argus.cli.papers import MARKS

if TYPE_CHECKING:
    from argus.core.benchmarks import Benchmark

group = typer.Typer(name="benchmarks", invoke_without_command=True, no_args_is_help=False, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group)


@group.callback(epilog=examples("argus benchmarks", "argus benchmarks list video OCR", "argus benchmarks show seed-bench"))
def overview(context: typer.Context) -> None:
    """List benchmarks by capability, or show what is known of one."""
    if context.invoked_subcommand is None:
        list_()


@group.command("list", epilog=examples("argus benchmarks list OCR", "argus benchmarks list video --json"))
def list_(
    leaves: Annotated[list[str] | None, typer.Argument(help="capabilities or branches, all of which it must have")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List benchmarks: cost, kind of answer, whether Argus reads it, its twin in the world, what was guessed without looking."""
    from argus.core.benchmarks import benchmarks, taxonomy

    found = benchmarks(leaves or [])
    if as_json:
        typer.echo(json.dumps([plain(b) for b in found], indent=1, ensure_ascii=False))
        return
    rows = [("benchmark", "cost", "answer", "read", "twin", "guessed", "capabilities")]
    rows += [
        (
            b.name,
            b.card.cost(),
            b.card.answer,
            "yes" if b.reader or b.name.startswith("world/") else "-",
            "yes" if b.twin else "-",
            guessed(b),
            ", ".join(b.card.leaves),
        )
        for b in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[6]]))
    if not leaves:
        here = {leaf for b in found for leaf in b.card.leaves}
        without = [leaf for of in taxonomy().values() for leaf in of if leaf not in here]
        typer.echo(f"no benchmark yet for: {', '.join(without)}")


@group.command(epilog=examples("argus benchmarks show seed-bench", "argus benchmarks show mmstar --json"))
def show(
    name: Annotated[str, typer.Argument(help="the benchmark's short name, e.g. seed-bench")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show a benchmark's card and what an audit of it found."""
    from argus.core.benchmarks import benchmark

    found = benchmark(name)
    if as_json:
        typer.echo(json.dumps(plain(found), indent=1, ensure_ascii=False))
        return
    for key, value in plain(found).items():
        if key == "audit":
            for check in value["checks"] if value else []:
                typer.echo(f"{'audit':12} {MARKS[check['holds']]} {check['name']}: {check['text']}")
        elif value not in (None, []):
            typer.echo(f"{key:12} {', '.join(map(str, value)) if isinstance(value, list) else value}")


@group.command(epilog=examples("argus benchmarks cover OCR video hallucination"))
def cover(leaves: Annotated[list[str], typer.Argument(help="capabilities to be measured")]) -> None:
    """Name a small set of benchmarks that together measure these capabilities."""
    from argus.core.benchmarks import benchmark, benchmarks, covering

    benchmarks(leaves)  # an unknown capability is named
    chosen = covering(leaves)
    for name in chosen:
        typer.echo(f"{name}: {', '.join(leaf for leaf in benchmark(name).card.leaves if leaf in leaves)}")
    if left := [leaf for leaf in leaves if not any(leaf in benchmark(n).card.leaves for n in chosen)]:
        typer.echo(f"no benchmark yet for: {', '.join(left)}")


@group.command(epilog=examples("argus benchmarks record mmstar runs/audit-of-argus-tiny-vlm-on-world-objects/20260102-030405"))
def record(
    name: Annotated[str, typer.Argument(help="the benchmark that was audited")],
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="the run folder of a finished `argus audit`")],
) -> None:
    """Keep what an audit found, so that the list of benchmarks shows it."""
    from argus.core.benchmarks import record_audit
    from argus.core.errors import ArgusError
    from argus.core.run import Run

    run = Run.open(folder)
    findings, checks = run.read_json("audit.json"), run.read_json("checklist.json")
    if not findings or not checks:
        raise ArgusError("this run is not a finished audit", where=str(folder), hint="Run: argus audit MODEL SCENARIO")
    environment = run.read_json("environment.json")
    kept = {key: environment[key] for key in ("command", "commit", "machine")}
    typer.echo(record_audit(name, {**kept, "findings": findings, "checks": checks}))


def plain(found: Benchmark) -> dict[str, Any]:
    """A benchmark as plain values."""
    return {
        "name": found.name,
        **found.card.model_dump(),
        "cost": found.card.cost(),
        "reader": found.reader,
        "components": found.measured_by,
        "twin": found.twin,
        "audit": found.audit,
    }


def guessed(found: Benchmark) -> str:
    """Points above chance without looking, where an audit was recorded."""
    if not found.audit:
        return "-"
    return next((f"{100 * f['value']:+.1f}" for f in found.audit["findings"] if f["name"] == "guessed without looking"), "-")
