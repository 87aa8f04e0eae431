"""The papers' catalogue: what is planned, what is built, and what was measured.

Nothing here is typed in by hand but the papers' titles. *Built* means that a component or a recipe names the paper; *measured*
means that a finished run of its recipe was recorded, with claims that are still the recipe's.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from argus.core.errors import ArgusError, UnknownNameError, nearest
from argus.core.recipe import recipe_roots
from argus.core.reference import digests
from argus.core.registry import components
from argus.core.run import Run
from argus.core.yaml_lines import read_yaml

Status = Literal["planned", "built", "measured"]


@dataclass(slots=True)
class Paper:
    """One system.

    Args:
        slug, name, title, area, arxiv: what it is.
        status: planned, built or measured.
        where: its components, as `kind name: module`.
        recipe: file of its recipe, relative to the recipes' folder.
        claims: the recipe's claims; with `holds`, `text` and `values` once measured.
        measured: command, commit, date, machine and minutes of the recorded run.
        note: why an earlier measurement does not count any more, or with what it was made that has changed since.
    """

    slug: str
    name: str
    title: str
    area: str
    arxiv: str | None = None
    status: Status = "planned"
    where: list[str] = field(default_factory=list)
    recipe: str | None = None
    claims: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, Any] | None = None
    note: str | None = None

    @property
    def stale(self) -> bool:
        """Whether it was measured with weights that a shipped model has no more."""
        return self.measured is not None and self.note is not None


def results_folder() -> Path:
    """Where recorded results are kept."""
    return Path(str(files("argus") / "results"))


@cache
def _catalogue() -> list[dict[str, Any]]:
    return yaml.safe_load((files("argus.core") / "papers.yaml").read_text(encoding="utf-8"))


def papers() -> list[Paper]:
    """All papers with their derived status, in the catalogue's order."""
    recipes = _recipes()
    by_paper: dict[str, list[str]] = {}
    for row in components():
        if row.paper:
            by_paper.setdefault(row.paper, []).append(f"{row.kind} {row.name}: {row.target.partition(':')[0]}")
    return [_derived(Paper(**row), by_paper.get(row["slug"], []), recipes.get(row["slug"])) for row in _catalogue()]


def paper(slug: str) -> Paper:
    """One paper.

    Raises:
        UnknownNameError: no such slug; the nearest is given.
    """
    known = {p.slug: p for p in papers()}
    if slug not in known:
        raise UnknownNameError(f"there is no paper '{slug}'.", hint=nearest(slug, known))
    return known[slug]


def to_json() -> list[dict[str, Any]]:
    """All papers as plain data."""
    return [asdict(p) for p in papers()]


def record_result(run: Run) -> Path:
    """Keep the claims of a finished run as the paper's measurement.

    Raises:
        ArgusError: the run is not finished, names no paper, or measured no claim.
    """
    state, metrics = run.read_json("state.json"), run.read_json("metrics.json")
    recipe, _ = read_yaml(run.folder / "recipe.yaml")
    slug = recipe.get("paper")
    if not state.get("finished"):
        raise ArgusError("the run is not finished", where=str(run.folder), hint="Give its command again; it goes on.")
    if not slug:
        raise ArgusError("the recipe names no paper", where=str(run.folder / "recipe.yaml"))
    paper(slug)
    claims = [c for c in metrics.get("claims", []) if c.get("holds") is not None]
    if not claims:
        raise ArgusError("the run measured no claim", where=str(run.folder))
    environment = run.read_json("environment.json")
    data = {
        "slug": slug,
        "claims": claims,
        "command": _anywhere(environment["command"]),
        "commit": environment["commit"],
        "machine": environment["machine"],
        "models": environment.get("models", {}),
        "date": time.strftime("%Y-%m-%d", time.localtime(state["started"])),
        "minutes": round(state["seconds"] / 60, 1),
        "measured": metrics.get("measured", {}),
    }
    folder = results_folder()
    folder.mkdir(exist_ok=True)
    path = folder / f"{slug}.json"
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def last_minutes(slug: str) -> float | None:
    """How long the recorded run took, whatever has become of its claims since; None without a record."""
    file = results_folder() / f"{slug}.json"
    return float(json.loads(file.read_text(encoding="utf-8"))["minutes"]) if file.exists() else None


def recorded_since(slug: str, moment: float) -> bool:
    """Whether a run was recorded after a moment, by any process."""
    file = results_folder() / f"{slug}.json"
    return file.exists() and file.stat().st_mtime > moment


def _anywhere(command: str) -> str:
    """A command without the folder of its runs, which decides no number and is this machine's alone."""
    words = shlex.split(command)
    while "--root" in words:
        at = words.index("--root")
        del words[at : at + 2]
    return shlex.join(word for word in words if not word.startswith("--root="))


def _recipes() -> dict[str, tuple[str, list[str], dict[str, str]]]:
    """slug -> (file relative to the recipes' folder, claims, digests of the shipped models that it names)."""
    found: dict[str, tuple[str, list[str], dict[str, str]]] = {}
    for root in recipe_roots():
        for file in sorted((root / "papers").glob("*.yaml")):
            data, _ = read_yaml(file)
            if isinstance(data, dict) and data.get("paper"):
                models = digests(file.read_text(encoding="utf-8"))
                found.setdefault(data["paper"], (str(file.relative_to(root)), list(data.get("claims") or []), models))
    return found


def _derived(one: Paper, where: list[str], recipe: tuple[str, list[str], dict[str, str]] | None) -> Paper:
    one.where = where
    if where or recipe:
        one.status = "built"
    if recipe is None:
        return one
    one.recipe, texts, models = recipe
    one.claims = [{"claim": text} for text in texts]
    file = results_folder() / f"{one.slug}.json"
    if not file.exists():
        return one
    result = json.loads(file.read_text(encoding="utf-8"))
    if [c["claim"] for c in result["claims"]] != texts:
        one.note = "the recipe's claims changed since they were measured"
        return one
    one.status, one.claims = "measured", result["claims"]
    one.measured = {k: result[k] for k in ("command", "commit", "date", "machine", "minutes")}
    other = [name for name, digest in models.items() if result.get("models", {}).get(name) != digest]
    if other:
        one.note = f"with earlier weights of {', '.join(other)}"
    return one
