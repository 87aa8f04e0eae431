"""The models that are shipped with the package, and what tells one state of them from another."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

SHIPPED = "argus/"
DIGITS = 12  # of a digest


def reference_models() -> dict[str, Path]:
    """The shipped models: name -> folder."""
    root = Path(str(files("argus") / "reference"))
    return {f"{SHIPPED}{p.name}": p for p in sorted(root.glob("*")) if (p / "config.json").exists()}


def not_better_than_chance(groups: dict[str, Any]) -> list[str]:
    """Families of one domain's recorded scores whose 95 % interval reaches down to chance, in the order of the scores."""
    chance = groups["chance"]
    return [f for f, found in groups.items() if f not in {"all", "blind", "chance"} and found["low"] <= chance.get(f, 0.0)]


def digests(text: str) -> dict[str, str]:
    """Shipped models that a recipe's text names -> digest of their weights."""
    return {
        name: _digest(folder) for name, folder in reference_models().items() if re.search(rf"{re.escape(name)}(?![\w-])", text)
    }


@cache
def _digest(folder: Path) -> str:
    found = sha256()
    for file in sorted(folder.glob("*.safetensors")):
        found.update(file.read_bytes())
    return found.hexdigest()[:DIGITS]
