"""`argus audit`: what of a score is seeing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from argus.cli.examples import examples
from argus.cli.papers import MARKS
from argus.cli.quiet import quiet


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(
        epilog=examples(
            "argus audit argus/tiny-vlm world/objects",
            "argus audit llava-hf/llava-1.5-7b-hf my-benchmark.tsv --base lmsys/vicuna-7b-v1.5",
        )
    )(audit)


def audit(
    model: Annotated[str, typer.Argument(help="shipped model, folder or hub name")],
    scenario: Annotated[str, typer.Argument(help="world/<domain>, or a dataset file")] = "world/objects",
    base: Annotated[str | None, typer.Option(help="the language model it was made of, for the leakage")] = None,
    samples: Annotated[int, typer.Option(min=10, help="questions, each asked in every way")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="which part of the scenario")] = 0,
    training: Annotated[Path | None, typer.Option(help="a dataset the model was trained on, to look for the items in")] = None,
    root: Annotated[Path, typer.Option(help="folder that run folders are made in")] = Path("runs"),
) -> None:
    """Print how much of a score is seeing.

    The same questions are asked with pictures, without, with wrong ones, and put otherwise.
    A checklist says how well the benchmark was made; `argus benchmarks record` keeps what was found.
    """
    from rich.table import Table

    from argus.core.progress import console
    from argus.runner.audit import audit as ask

    quiet()
    asked = scenario if not Path(scenario).is_file() else {"file": {"path": scenario}}
    done, found = ask(model, asked, base=base, samples=samples, seed=seed, training=training, root=root)
    table = Table(title="What of the score is seeing", title_justify="left", box=None)
    for heading in ("", "points", "95 % interval", "p", "items", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for finding in found:
        d = finding.difference
        interval = f"{100 * d.low:+.1f} to {100 * d.high:+.1f}"
        table.add_row(finding.name, f"{100 * d.value:+.1f}", interval, f"{d.p:.3f}", f"{d.n:,}", finding.meaning)
    console().print(table)
    for check in done.read_json("checklist.json"):
        console().print(f"{MARKS[check['holds']]} {check['name']}: {check['text']}", highlight=False, markup=False)
    console().print(f"audit: {done.folder / 'audit.json'}", highlight=False, soft_wrap=True)
