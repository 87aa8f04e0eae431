"""`argus world`: look at the procedural world, export it, audit its priors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from argus.cli.examples import examples

if TYPE_CHECKING:
    from argus.world.domain import Domain, Drawing

Split = Annotated[Literal["train", "validation", "test"], typer.Option(help="whose scenes are drawn")]
Name = Annotated[str, typer.Argument(metavar="DOMAIN", help="a domain, as `argus components list domain` names it")]
Start = Annotated[int, typer.Option(min=0, help="first scene of the split")]
Set = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="options of the domain, e.g. max_objects=3")]
LIMIT = 1.3  # share of the most frequent answer over chance that the world stays below

group = typer.Typer(name="world", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group)


@group.callback()
def about() -> None:
    """Draw, export and audit the procedural world."""


@group.command(
    epilog=examples(
        "argus world show objects",
        "argus world show charts --size 256 --count 6 --out charts.png",
        "argus world show documents min_height=0.05 text=random --size 384",
    )
)
def show(
    domain: Name,
    options: Set = None,
    out: Annotated[Path | None, typer.Option(help="the PNG to write; DOMAIN.png by default")] = None,
    size: Annotated[int, typer.Option(min=32, max=1024, help="side of each picture in pixels")] = 192,
    count: Annotated[int, typer.Option(min=1, max=200, help="pictures")] = 12,
    questions: Annotated[int, typer.Option(min=0, max=16, help="questions under each")] = 4,
    split: Split = "test",
    start: Start = 0,
) -> None:
    """Draw a contact sheet: pictures with their questions and answers."""
    from argus.world.sheet import contact_sheet

    target = out or Path(f"{domain}.png")
    sheet = contact_sheet(_domain(domain, options), target, split=split, start=start, count=count, size=size, questions=questions)
    typer.echo(sheet)


@group.command(
    epilog=examples(
        "argus world export objects --count 1000 --out objects.jsonl",
        "argus world export charts --out charts.json --format llava",
        "argus world export tables --split test --out tables.tsv",
    )
)
def export(
    domain: Name,
    out: Annotated[Path, typer.Option(help="the file to write; pictures go beside it")],
    options: Set = None,
    format: Annotated[str | None, typer.Option(help="messages, llava, tsv or parquet; by the file's ending if left out")] = None,
    count: Annotated[int, typer.Option(min=1, help="pictures")] = 100,
    size: Annotated[int, typer.Option(min=32, max=2048, help="side of each picture in pixels")] = 96,
    questions: Annotated[int, typer.Option(min=1, max=64, help="questions per picture")] = 8,
    split: Split = "train",
    start: Start = 0,
) -> None:
    """Write pictures with their questions and answers as a dataset that other tools read.

    One conversation per picture; in a table (tsv) one question a row, with its options and its family as the category.
    """
    from argus.core.formats import write_samples, written_as
    from argus.core.progress import track
    from argus.world.data import conversation, table_rows

    built, name = _domain(domain, options), written_as(out, format)
    drawn = track((_told(built.draw(split, start + i, size, questions)) for i in range(count)), "drawing", total=count)
    if name == "tsv":  # a row is one question
        samples = (row for drawing in drawn for row in table_rows(drawing))
    else:
        samples = (conversation(drawing) for drawing in drawn)
    written = write_samples(samples, out, name)
    typer.echo(f"{out}: {written} samples")


@group.command(epilog=examples("argus world audit objects", "argus world audit tables --scenes 10000"))
def audit(
    domain: Name,
    options: Set = None,
    scenes: Annotated[int, typer.Option(min=1, help="scenes whose questions are counted")] = 3000,
    split: Split = "test",
) -> None:
    """Show what can be guessed without looking: per family the most frequent answer against chance."""
    from argus.core.errors import ArgusError
    from argus.world.data import priors

    rows = priors(_domain(domain, options), split, scenes)
    typer.echo(f"{'family':14} {'questions':>9} {'chance':>7} {'most frequent':>14} {'answer':12} ratio")
    for row in rows:
        typer.echo(f"{row.family:14} {row.count:9} {row.chance:7.1%} {row.share:14.1%} {row.answer[:12]:12} {row.ratio:5.2f}")
    # Twice the standard error of a share: with few questions a family may look skewed by luck.
    skewed = [
        row.family for row in rows if row.share - 2 * (row.share * (1 - row.share) / row.count) ** 0.5 >= LIMIT * row.chance
    ]
    if skewed:
        raise ArgusError(f"the most frequent answer is {LIMIT} times chance or more in: {', '.join(skewed)}", where=domain)


def _told(drawing: Drawing) -> Drawing:
    """The drawing, if what it asks can be written down.

    Raises:
        DataError: it asks to choose between pictures, for which datasets have no place.
    """
    from argus.core.errors import DataError

    if any(drawing.drawn):
        raise DataError("its options are pictures, and datasets hold options in words", where=drawing.id)
    return drawing


def _domain(name: str, options: list[str] | None) -> Domain:
    """The domain with its `key=value` options, each value read as YAML."""
    import yaml

    from argus.core.errors import RecipeError
    from argus.core.registry import build

    given = {}
    for option in options or []:
        key, equals, value = option.partition("=")
        if not equals:
            raise RecipeError(f"'{option}' is no KEY=VALUE", hint="For example: max_objects=3")
        given[key] = yaml.safe_load(value)
    return build("domain", name, given)
