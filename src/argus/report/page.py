"""The page of a run: one self-contained `report.html` - styles, plots and pictures inside, nothing fetched."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from argus.evaluation.statistics import Measurement
from argus.report.curves import curves
from argus.report.numbers import scale
from argus.report.plots import cost_plot, family_plot, label, series
from argus.report.summary import ALL, BLIND, Evaluated, Example, Summary, Trained
from argus.report.theme import css_variables, inline_svg, save_png, style

FILE = "report.html"


@dataclass(slots=True)
class Cell:
    """A number in a table: value, its 95 % interval, its ratio to the baseline, and whether it is the column's best."""

    value: str
    interval: str = ""
    ratio: str = ""
    best: bool = False


@dataclass(slots=True)
class Table:
    """An evaluation as a table.

    Args:
        columns: (metric, heading, `higher` or `lower`).
        rows: a variant's name and its cells.
        below: what bounds the scores from below: blind answers, chance.
    """

    columns: list[tuple[str, str, str]]
    rows: list[tuple[str, list[Cell]]]
    below: list[tuple[str, list[Cell]]]


def table(evaluated: Evaluated, baseline: str | None) -> Table:
    """Values with intervals; costs also as a share of the baseline's.

    Args:
        evaluated: one evaluation.
        baseline: the variant that costs are compared with; None leaves ratios out.
    """
    metrics = list(dict.fromkeys(m for r in evaluated.results for m in r.metrics))
    reference = next((r.metrics for r in evaluated.results if r.variant == baseline), {})
    cells: dict[str, list[Cell]] = {r.variant: [] for r in evaluated.results}
    for metric in metrics:
        measured = [r.metrics[metric] for r in evaluated.results if metric in r.metrics]
        unit = scale(measured[0].unit, (m.value for m in measured))
        values = [m.value for m in measured if not math.isnan(m.value)]
        sign = -1 if evaluated.better.get(metric) == "lower" else 1
        best = max((sign * v for v in values), default=math.nan) if len(set(values)) > 1 else math.nan
        for result in evaluated.results:
            m = result.metrics.get(metric)
            if m is None:
                cells[result.variant].append(Cell("-"))
                continue
            ratio = _ratio(m, reference.get(metric)) if result.variant != baseline else ""
            cells[result.variant].append(Cell(unit.value(m.value), unit.interval(m), ratio, sign * m.value == best))
    columns = [(m, label(m), evaluated.better.get(m, "higher")) for m in metrics]
    return Table(columns, list(cells.items()), list(_below(evaluated, metrics)))


def baseline(summary: Summary) -> str | None:
    """The variant that costs are compared with: the one named `full`, else the first that changes nothing."""
    names = [v.name for v in summary.variants]
    plain = [v.name for v in summary.variants if not v.changes]
    return "full" if "full" in names else plain[0] if plain else None


def write_page(summary: Summary, folder: Path) -> Path:
    """Write `report.html` and, beside it in `plots/`, every plot as a PNG.

    Args:
        summary: what the run found.
        folder: the run folder; pictures of examples are read from it.

    Returns:
        The page's path.
    """
    from jinja2 import Environment, StrictUndefined

    here = files("argus.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    reference = baseline(summary)
    with style():
        sections = [_section(summary, evaluated, reference, folder) for evaluated in summary.evaluated]
        trained = [(stage, _stage_plots(stage, folder)) for stage in summary.trained]
    verdicts = Counter(claim.holds for claim in summary.claims)
    html = environment.from_string(here.joinpath("page.html.j2").read_text(encoding="utf-8")).render(
        summary=summary,
        baseline=reference,
        sections=sections,
        trained=trained,
        verdicts=verdicts,
        duration=duration(summary.seconds),
        css=css_variables() + here.joinpath("page.css").read_text(encoding="utf-8"),
    )
    page = folder / FILE
    part = folder / f"{FILE}.part"
    part.write_text(html, encoding="utf-8")
    return part.replace(page)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _below(evaluated: Evaluated, metrics: list[str]) -> Iterator[tuple[str, list[Cell]]]:
    """Rows under the table: what variants reach without the picture, and what guessing reaches."""
    blind: dict[str, list[Cell]] = {}
    for result in evaluated.results:
        found = [result.measurements.get(metric, {}).get(BLIND) for metric in metrics]
        if any(found):
            blind[result.variant] = [_cell(m) if m else Cell("") for m in found]
    rows = list(blind.items())
    if rows and all(cells == rows[0][1] for _, cells in rows):
        yield "without the picture", rows[0][1]
    else:
        yield from ((f"{variant}, without the picture", cells) for variant, cells in rows)
    if ALL in evaluated.chance and "accuracy" in metrics:
        chance = Cell(scale("share", []).value(evaluated.chance[ALL]))
        yield "chance", [chance if metric == "accuracy" else Cell("") for metric in metrics]


def _cell(m: Measurement) -> Cell:
    unit = scale(m.unit, [m.value])
    return Cell(unit.value(m.value), unit.interval(m))


def _ratio(m: Measurement, reference: Measurement | None) -> str:
    if reference is None or m.unit == "share" or not reference.value or math.isnan(m.value + reference.value):
        return ""
    return f"{m.value / reference.value:.2f}x"


def _drawn(figure: Any, folder: Path, name: str, description: str) -> str:
    """The figure as SVG for the page; also saved as a PNG."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    save_png(figure, folder / "plots" / f"{safe}.png")
    return inline_svg(figure, description)


def _section(summary: Summary, evaluated: Evaluated, reference: str | None, folder: Path) -> dict[str, Any]:
    """One evaluation, ready for the template."""
    shown = table(evaluated, reference)
    score = next((m for m, _, better in shown.columns if better == "higher"), None)
    costs = [m for m, _, better in shown.columns if better == "lower"] if score else []
    costs = [c for c in costs if len({r.metrics[c].value for r in evaluated.results if c in r.metrics}) > 1]
    plots = [
        _drawn(cost_plot(evaluated, summary.variants, score, cost), folder, f"{evaluated.name}-{score}-{cost}",
               f"{label(score)} of each variant against its {label(cost)}; the numbers are in the table above")
        for cost in costs if score
    ]  # fmt: skip
    families = list(_family_plots(summary, evaluated, score, folder)) if score else []
    reasons = sorted(evaluated.set_aside.items(), key=lambda item: -item[1])
    return {
        "evaluated": evaluated,
        "table": shown,
        "plots": plots,
        "score": label(score) if score else "",
        "families": families,
        "examples": [_example(example, folder) for example in evaluated.examples],
        "reasons": reasons,
        "set_aside": sum(evaluated.set_aside.values()),
    }


def _stage_plots(stage: Trained, folder: Path) -> list[str]:
    return [
        _drawn(figure, folder, f"{stage.variant}-{stage.stage}-{axis}", f"{axis} of stage {stage.stage} over its steps")
        for axis, figure in curves(stage.log).items()
    ]


def _family_plots(summary: Summary, evaluated: Evaluated, score: str, folder: Path) -> Iterator[str]:
    numbers = series(summary.variants)
    technique = {v.name: v.technique for v in summary.variants}
    for family in evaluated.families:
        rows = [
            (r.variant, numbers[technique[r.variant]], r.measurements[score][family])
            for r in evaluated.results
            if family in r.measurements.get(score, {})
        ]
        if not rows:
            continue
        words = ", ".join(f"{n} {scale(m.unit, [m.value]).value(m.value)}" for n, _, m in rows)
        chance = evaluated.chance.get(family) if score == "accuracy" else None
        against = f"; chance {chance:.1%}" if chance is not None else ""
        yield _drawn(
            family_plot(family, rows, chance),
            folder,
            f"{evaluated.name}-{family}",
            f"{label(score)} on {family}: {words}{against}",
        )


def _example(example: Example, folder: Path) -> dict[str, Any]:
    return {
        "example": example,
        "picture": _embedded(folder / example.picture) if example.picture else "",
        "replies": [
            (reply, _embedded(folder / reply.picture) if reply.picture else "", _mark(reply.score)) for reply in example.replies
        ],
    }


def _mark(score: float | None) -> str:
    if score is None:
        return ""
    return "right" if score >= 1 else "wrong" if score <= 0 else f"{score:.2f}"


def _embedded(path: Path) -> str:
    """A picture file as a data URI (WebP); empty if the file is gone."""
    from PIL import Image

    if not path.is_file():
        return ""
    out = BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(out, "WEBP", quality=88, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")
