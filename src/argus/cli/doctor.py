"""`argus doctor`: what this installation can do."""

from __future__ import annotations

from typing import Annotated

import typer

from argus.cli.examples import examples

# extra -> (a module that it brings, what it is for)
EXTRAS = {
    "data": ("pyarrow", "Parquet and Hugging Face datasets"),
    "train": ("tensorboard", "TensorBoard events and TRL objectives"),
    "serve": ("fastapi", "an OpenAI-compatible server"),
    "ui": ("gradio", "the arena"),
    "video": ("av", "video files"),
    "retrieval": ("faiss", "vector search"),
    "ocr": ("rapidocr", "text recognition"),
    "judge": ("openai", "models behind an API"),
    "ray": ("ray", "shards of an evaluation on a cluster"),
    "docs": ("mkdocs", "building the documentation"),
}


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=examples("argus doctor", "argus doctor --json"))(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Show versions, device and optional parts.

    What is missing is listed with the command that installs it.
    """
    import json
    from importlib.util import find_spec

    from argus.core.environment import environment

    found = environment()
    extras = {name: find_spec(module) is not None for name, (module, _) in EXTRAS.items()}
    if as_json:
        typer.echo(json.dumps({"environment": found, "extras": extras}, indent=1))
        return
    width = max(map(len, [*found, *EXTRAS]))
    for key, value in found.items():
        typer.echo(f"{key:{width}}  {value}")
    typer.echo("")
    for name, (_, purpose) in EXTRAS.items():
        state = "installed" if extras[name] else f'pip install "argus-vl[{name}]"'
        typer.echo(f"{name:{width}}  {purpose}: {state}")
