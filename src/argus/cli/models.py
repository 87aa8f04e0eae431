"""`argus models`: the reference models that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from argus.cli.examples import examples

SCORES = "scores.json"  # in a reference model's folder: what was measured, and by which recipe


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=examples("argus models", "argus models --json"))(models)


def models(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """List the shipped reference models.

    With size on disk, parameters and recorded scores.
    """
    from argus.core.reference import reference_models

    rows = [{"name": name, **description(folder)} for name, folder in reference_models().items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo("no reference models are installed")
    for row in rows:
        typer.echo(f"{row['name']}  {row['type']}, {row['parameters'] / 1e6:.1f} M parameters, {row['bytes'] / 1e6:.1f} MB")
        for name, found in row["scores"].items():
            typer.echo(f"  {name}: {line(found)}")


def line(found: dict[str, Any]) -> str:
    """One entry of the scores: a domain's accuracy beside blind guessing and chance, or what stands there, piece by piece."""
    from argus.core.reference import not_better_than_chance

    if "all" in found:
        beside = [("without picture", found["blind"]["value"]), ("chance", found["chance"]["all"])]
        weak = not_better_than_chance(found)
        at_chance = f"; no better than chance: {', '.join(weak)}" if weak else ""
        return f"{found['all']['value']:.1%} ({', '.join(f'{name} {value:.1%}' for name, value in beside)}{at_chance})"
    return ", ".join(f"{name} {line(value) if isinstance(value, dict) else value}" for name, value in found.items())


def description(folder: Path) -> dict[str, Any]:
    """Type, parameters and size of a model folder, and its recorded scores."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = sorted(folder.glob("*.safetensors"))
    scores = folder / SCORES
    return {
        "type": config.get("model_type", ""),
        "parameters": sum(_parameters(path) for path in weights),
        "bytes": sum(path.stat().st_size for path in weights),
        "scores": json.loads(scores.read_text(encoding="utf-8")) if scores.exists() else {},
    }


def _parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header: 8 bytes of length, then JSON with every tensor's shape."""
    from math import prod

    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
