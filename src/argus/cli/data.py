"""`argus data`: look into datasets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from argus.cli.examples import examples

if TYPE_CHECKING:
    from argus.core.formats import Summary
    from argus.evaluation.scenarios.published import Download

FORMAT = "messages, llava, tsv or parquet; found out from the file if left out"
BAD = 1  # exit code when records could not be read

group = typer.Typer(name="data", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group)


@group.callback()
def about() -> None:
    """Check datasets."""


@group.command(
    epilog=examples(
        "argus data check train.jsonl",
        "argus data check train.json --format llava --json",
        "argus data check train.jsonl --strict",
        "argus data check seed-bench ~/data/SEED-Bench",
    )
)
def check(
    what: Annotated[str, typer.Argument(metavar="[BENCHMARK] PATH", help="the dataset's file; or a benchmark and its download")],
    download: Annotated[Path | None, typer.Argument(metavar="", help="the benchmark's folder or item file")] = None,
    format: Annotated[str | None, typer.Option(help=FORMAT)] = None,
    options: Annotated[list[str] | None, typer.Option("--set", help="a benchmark's option, key=value")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="stop at the first bad record instead of counting them")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Read a whole dataset, or a benchmark's download, and say what is in it.

    Pictures are read too. Each bad record is set aside, counted, and listed with file, line and reason.
    Exits with 1 when records are bad.
    """
    from argus.core.errors import DataError

    if download is not None:
        found: Any = _downloaded(what, download, options or [])
        if strict and found.errors:
            raise DataError(found.errors[0])
        bad, lines = found.bad, benchmark_text(what, found)
    else:
        from argus.core.formats import check as check_file

        found = check_file(what, format, strict=strict)
        bad, lines = found.bad, file_text(what, found)
    typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False) if as_json else "\n".join(lines))
    if bad:
        raise typer.Exit(BAD)


def _downloaded(name: str, path: Path, options: list[str]) -> Download:
    """What is in a benchmark's download.

    Raises:
        UnknownNameError: Argus reads no such benchmark.
    """
    import yaml

    from argus.core.benchmarks import readable
    from argus.core.errors import RecipeError, UnknownNameError, nearest
    from argus.core.registry import build, component

    known = {b: scenario for b, scenario in readable().items() if hasattr(component("scenario", scenario).load(), "check")}
    if name not in known:
        raise UnknownNameError(f"there is no benchmark '{name}' whose download can be read.", hint=nearest(name, known))
    given = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise RecipeError(f"'{option}' is no KEY=VALUE", hint="For example: --set task=image")
        given[key] = yaml.safe_load(value)
    return build("scenario", known[name], {"path": path, **given}).check()


def file_text(path: str, found: Summary) -> list[str]:
    """What is in a file, as lines."""
    turns = ", ".join(f"{count:,} {role}" for role, count in found.roles.items())
    return [
        f"{path}: {found.format}",
        f"samples          {found.good:,}",
        f"turns            {turns or 'none'}",
        f"pictures         {found.pictures:,}",
        f"longest answer   {found.longest_answer:,} characters",
        *_problems(found.bad, found.errors),
    ]


def benchmark_text(name: str, found: Download) -> list[str]:
    """What is in a benchmark's download, as lines: per dimension the items that can be asked beside those published."""
    width = max(map(len, found.found))
    rows = [
        f"  {dimension:{width}}  {count:6,}" + (f" of {published:,}" if (published := found.published[dimension]) else "")
        for dimension, count in found.found.items()
    ]
    total = sum(found.found.values())
    lines = [f"{found.file}: {name}", *rows, f"can be asked     {total:,}"]
    if found.letters:
        letter, most = max(found.letters.items(), key=lambda row: row[1])
        lines.append(f"most frequent    {letter}, {most / total:.1%} of the right answers")
    return [*lines, *_problems(found.bad, found.errors)]


def _problems(bad: int, errors: list[str]) -> list[str]:
    more = [f"  and {bad - len(errors):,} more"] if bad > len(errors) else []
    return [f"cannot be read   {bad:,}", *(f"  {error}" for error in errors), *more]
