"""The page that compares several runs: leaderboard, radar by capability, differences item by item, and the items missed most."""

from __future__ import annotations

import base64
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from argus.evaluation.statistics import Difference
from argus.report.numbers import scale
from argus.report.page import table
from argus.report.plots import label
from argus.report.radar import FEWEST, radar
from argus.report.summary import Evaluated
from argus.report.theme import css_variables, inline_svg, style

FILE, ITEMS = "comparison.html", "comparison-{name}.csv"


@dataclass(slots=True)
class Item:
    """A question as all entries answered it.

    Args:
        replies: one (answer, points) per entry, in their order; points are None where the first metric gives none.
        picture: what was shown; None where it is not shown again.
    """

    id: str
    family: str
    question: str
    target: str
    group: str
    replies: list[tuple[str, float | None]]
    picture: Image.Image | None = None

    @property
    def points(self) -> float:
        """Mean points of all entries; NaN where nothing is scored per question."""
        scored = [p for _, p in self.replies if p is not None]
        return sum(scored) / len(scored) if scored else math.nan


@dataclass(slots=True)
class Board:
    """One evaluation that all entries were asked in.

    Args:
        evaluated: its numbers; the results' names are those of the entries.
        items: every question that all entries answered; the numbers are over these.
        own: entries whose numbers could not be computed again from these, and are over all that they answered themselves.
        differences: (entry, its paired difference to the first entry).
        differing: questions shown on which the first and the last entry differ.
        missed: questions shown that most entries got wrong.
    """

    evaluated: Evaluated
    items: list[Item]
    own: list[str] = field(default_factory=list)
    differences: list[tuple[str, Difference]] = field(default_factory=list)
    differing: list[Item] = field(default_factory=list)
    missed: list[Item] = field(default_factory=list)

    @property
    def entries(self) -> list[str]:
        """Who was compared."""
        return [result.variant for result in self.evaluated.results]


def write_comparison(boards: Sequence[Board], out: Path) -> list[Path]:
    """Write the page, and one table per evaluation with a row for every question.

    Args:
        boards: what was compared; at least one.
        out: the folder.

    Returns:
        The page, then the tables.
    """
    from jinja2 import Environment, StrictUndefined

    out.mkdir(parents=True, exist_ok=True)
    here = files("argus.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    with style():
        sections = [_section(board) for board in boards]
    html = environment.from_string(here.joinpath("comparison.html.j2").read_text(encoding="utf-8")).render(
        sections=sections, css=css_variables() + here.joinpath("page.css").read_text(encoding="utf-8")
    )
    page = out / FILE
    page.write_text(html, encoding="utf-8")
    return [page, *(_items(board, out) for board in boards)]


def _section(board: Board) -> dict[str, Any]:
    evaluated = board.evaluated
    shown = table(evaluated, None)
    score = next((m for m, _, better in shown.columns if better == "higher"), None)
    if score is not None:  # the leaderboard's order: the best first

        def place(name: str) -> float:
            (value,) = (
                r.metrics[score].value if score in r.metrics else -math.inf for r in evaluated.results if r.variant == name
            )
            return math.inf if math.isnan(value) else -value

        shown.rows.sort(key=lambda row: place(row[0]))
    return {
        "board": board,
        "table": shown,
        "score": label(score) if score else "",
        "radar": _radar(evaluated, score) if score else "",
        "differences": [(name, _points(d), d) for name, d in board.differences],
        "differing": [_shown(item, board) for item in board.differing],
        "missed": [_shown(item, board) for item in board.missed],
        "disagreed": sum(len({p for _, p in item.replies}) > 1 for item in board.items),
    }


def _radar(evaluated: Evaluated, score: str) -> str:
    families = [f for f in evaluated.families if any(f in r.measurements.get(score, {}) for r in evaluated.results)]
    units = {m.unit for r in evaluated.results for m in r.measurements.get(score, {}).values()}
    if len(families) < FEWEST or units != {"share"}:
        return ""
    rows = {}
    for result in evaluated.results:
        of = result.measurements.get(score, {})
        rows[result.variant] = [of[f].value if f in of else math.nan for f in families]
    words = "; ".join(f"{n}: " + ", ".join(f"{f} {v:.1%}" for f, v in zip(families, row, strict=True)) for n, row in rows.items())
    chance = [evaluated.chance[f] for f in families] if score == "accuracy" else None
    return inline_svg(radar(families, rows, chance), f"{label(score)} by capability. {words}")


def _points(d: Difference) -> str:
    """`+3.1 % (0.4 to 5.8)`."""
    unit = scale("share", [d.value])
    return f"{'+' if d.value > 0 else ''}{unit.value(d.value)} ({unit.number(d.low)} to {unit.number(d.high)})"


def _shown(item: Item, board: Board) -> dict[str, Any]:
    marks = {None: "", 1.0: "right", 0.0: "wrong"}
    replies = [
        (name, answer, marks.get(points, f"{points:.2f}" if points is not None else ""))
        for name, (answer, points) in zip(board.entries, item.replies, strict=True)
    ]
    return {"item": item, "picture": _embedded(item.picture) if item.picture else "", "replies": replies}


def _embedded(picture: Image.Image) -> str:
    out = BytesIO()
    picture.convert("RGB").save(out, "WEBP", quality=88, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _items(board: Board, out: Path) -> Path:
    path = out / ITEMS.format(name=board.evaluated.name)
    heads = [f"{name}: {what}" for name in board.entries for what in ("answer", "points")]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "family", "question", "target", *heads])
        for item in board.items:
            rows.writerow([item.id, item.family, item.question, item.target, *(x for reply in item.replies for x in reply)])
    return path
