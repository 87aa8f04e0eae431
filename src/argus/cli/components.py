"""`argus components`: what there is, and the options of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from argus.cli.examples import examples

if TYPE_CHECKING:
    from argus.core.registry import Options

group = typer.Typer(
    name="components",
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(group)


@group.callback(epilog=examples("argus components", "argus components list reducer", "argus components show reducer fastervlm"))
def overview(context: typer.Context) -> None:
    """List components, or show the options of one."""
    if context.invoked_subcommand is None:
        list_()


@group.command("list", epilog=examples("argus components list", "argus components list metric --json"))
def list_(
    kind: Annotated[str | None, typer.Argument(help="one kind, e.g. reducer; every kind if left out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List components with a sentence each."""
    from argus.core.registry import components

    rows = components(kind)
    if as_json:
        fields = ("kind", "name", "summary", "paper", "target")
        typer.echo(json.dumps([{f: getattr(row, f) for f in fields} for row in rows], indent=1))
        return
    width = max((len(row.name) for row in rows), default=0)
    last = ""
    for row in rows:
        if row.kind != last:
            typer.echo(f"{row.kind}")
            last = row.kind
        typer.echo(f"  {row.name:{width}}  {row.summary}" + (f"  [{row.paper}]" if row.paper else ""))


@group.command(epilog=examples("argus components show reducer fastervlm", "argus components show domain objects --json"))
def show(
    kind: Annotated[str, typer.Argument(help="kind of component, e.g. reducer")],
    name: Annotated[str, typer.Argument(help="its name")],
    as_json: Annotated[bool, typer.Option("--json", help="print the options' JSON schema")] = False,
) -> None:
    """Show what a component is and every option: type, default, bounds, meaning."""
    from argus.core.registry import component, options_type

    row = component(kind, name)
    model = options_type(kind, name)
    if as_json:
        typer.echo(json.dumps(model.model_json_schema(), indent=1))
        return
    typer.echo(f"{row.kind} {row.name}: {row.summary}" + (f" (paper: {row.paper})" if row.paper else ""))
    typer.echo(f"{row.target}\n")
    typer.echo(options_text(model))


def options_text(model: type[Options]) -> str:
    """A component's options as aligned lines: name, type and bounds, default, meaning."""
    if not model.model_fields:
        return "no options"
    rows = [("option", "type", "default", "meaning")]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        rows.append((name, " ".join([_type(field.annotation), *_bounds(field)]), default, field.description or ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows)


def _default(value: Any) -> str:
    """A default as a recipe would write it."""
    try:
        return json.dumps(value)
    except TypeError:
        return str(value)


def _type(annotation: Any) -> str:
    """`int`, `str or null`, `'a' or 'b'`, `list[str]`."""
    from types import NoneType, UnionType
    from typing import Literal, Union, get_args, get_origin

    if annotation in (None, NoneType):
        return "null"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(json.dumps(v) for v in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type(a) for a in inner)
    if origin is Annotated:
        return _type(inner[0])
    if inner:
        return f"{getattr(origin, '__name__', origin)}[{', '.join(_type(a) for a in inner)}]"
    return getattr(annotation, "__name__", str(annotation))


def _bounds(field: Any) -> list[str]:
    """What pydantic checks beyond the type, e.g. `>= 0`, `<= 1`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}
    return [f"{sign} {getattr(rule, name)}" for rule in field.metadata for name, sign in signs.items() if hasattr(rule, name)]
