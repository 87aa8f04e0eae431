"""What of a score is seeing: one scenario asked in ways that differ in what can be seen, and the paired differences.

    seen          as it is
    blind, grey   without the picture; with a plain grey one in its place
    wrong         with another item's picture
    base          the language model that the model was made of, without pictures
    letters       with the options shown as letters; `circular` also in every rotation, where all must be right
    reworded      the question put in other words
    led           a wrong answer named first

From these: multimodal gain seen - blind, multimodal leakage max(0, blind - base) (MMStar, arXiv 2403.20330), and what is above
chance without looking. All ways are asked about the same items, so every difference is paired, its interval clustered by picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from argus.core.errors import RecipeError
from argus.core.formats import read_samples
from argus.core.run import Run, slug
from argus.evaluation.leakage import multimodal_leakage
from argus.evaluation.scenarios.base import scenario_of
from argus.evaluation.statistics import Difference, paired
from argus.runner.checklist import checklist
from argus.runner.run import run


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an audit: `a - b` on the same items, and what it says."""

    name: str
    meaning: str
    difference: Difference


def audit_recipe(model: str, scenario: str | dict[str, Any], *, base: str | None, samples: int, seed: int) -> dict[str, Any]:
    """The recipe of an audit: one evaluation, a variant per way of asking.

    Args:
        model, base: references to the model and to the language model it was made of.
        scenario: as in a recipe's `evaluate`.
    """
    variants: dict[str, Any] = {
        "seen": {},
        "blind": {"ask": {"instruction": "blind"}},
        "grey": {"ask": {"instruction": {"blind": {"picture": "grey"}}}},
        "wrong": {"ask": {"scenario": {"wrong_picture": {"of": scenario}}}},
        "letters": {"ask": {"instruction": "options"}},
        "circular": {"ask": {"scenario": {"circular": {"of": scenario}}, "instruction": "options"}},
        "reworded": {"ask": {"instruction": "pool"}},
        "led": {"ask": {"instruction": "leading"}},
    }
    if base is not None:
        variants["base"] = {"model": {"from": base}, "ask": {"instruction": "blind"}}
    shown = scenario if isinstance(scenario, str) else next(iter(scenario))
    return {
        "name": f"Audit of {model} on {shown}",
        "description": "The same questions with pictures, without, with wrong ones, and put otherwise.",
        "model": {"from": model},
        "variants": variants,
        "evaluate": [{"scenario": scenario, "samples": samples, "seed": seed, "metrics": ["accuracy", "above_chance"]}],
    }


def audit(
    model: str,
    scenario: str | dict[str, Any] = "world/objects",
    *,
    base: str | None = None,
    samples: int = 1000,
    seed: int = 0,
    training: Path | None = None,
    root: Path = Path("runs"),
) -> tuple[Run, list[Finding]]:
    """Ask a model about a scenario in every way and compare.

    The recipe is written beside the runs, to be changed and run again; the findings go to `audit.json` in the run folder, and
    what they say about the benchmark to `checklist.json` (`argus.runner.checklist`).

    Args:
        samples: questions; each is asked in every way.
        seed: which part of the scenario.
        training: a dataset that a model was trained on, in which the items are looked for.
        root: folder that run folders are made in.

    Raises:
        ArgusError: the model or the scenario cannot be used.
    """
    recipe = audit_recipe(model, scenario, base=base, samples=samples, seed=seed)
    root.mkdir(parents=True, exist_ok=True)
    file = root / f"{slug(recipe['name'])}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    done = run(file, root=root)
    found = findings(done)
    done.write_json("audit.json", [{"name": f.name, "meaning": f.meaning, **asdict(f.difference)} for f in found])
    items = [s for g in scenario_of(scenario).groups(samples, seed) for s in g.samples] if training else []
    checks = checklist(done, {f.name: f.difference for f in found}, read_samples(training) if training else None, items)
    done.write_json("checklist.json", [asdict(check) for check in checks])
    return done, found


def findings(done: Run) -> list[Finding]:
    """The differences of a finished audit.

    Raises:
        RecipeError: the run is not an audit.
    """
    answers = {path.name.split(".")[0]: dict(_answers(done, path)) for path in sorted((done.folder / "records").glob("*.jsonl"))}
    if not {"seen", "blind", "wrong"} <= answers.keys():
        raise RecipeError("this run is not an audit: it has no variants seen, blind, wrong", where=str(done.folder))
    found = [
        _finding("multimodal gain", "what pictures add: seen - blind", answers["seen"], answers["blind"]),
        _finding("right by the right picture", "seen - wrong", answers["seen"], answers["wrong"]),
        _above_chance(answers["blind"]),
    ]
    if "grey" in answers:
        found.append(_finding("grey picture", "a grey picture instead of none: grey - blind", answers["grey"], answers["blind"]))
    if "base" in answers:
        leak = _finding("multimodal leakage", "learned without pictures: max(0, blind - base)", answers["blind"], answers["base"])
        d = leak.difference
        clipped = Difference(multimodal_leakage(d.value, 0.0), d.low, d.high, d.p, d.n, d.wins, d.losses)
        found.append(Finding(leak.name, leak.meaning, clipped))
    for name, meaning in (("reworded", "in other words: reworded - seen"), ("led", "a wrong answer named first: led - seen")):
        if name in answers:
            found.append(_finding(name, meaning, answers[name], answers["seen"]))
    if {"letters", "circular"} <= answers.keys():
        every = {
            item: (min(v for v, _, _ in row), row[0][1], row[0][2]) for item, row in _by_item(done, "circular").items() if row
        }
        found.append(_finding("position of the options", "right in every rotation - right as asked", every, answers["letters"]))
    return found


Answers = dict[str, tuple[float, str, float]]  # question -> (right, picture, chance)


def _answers(done: Run, path: Path) -> Iterator[tuple[str, tuple[float, str, float]]]:
    with done.records(path.stem) as records:
        for r in records.records():
            if r["kind"] == "answer" and not r["blind"] and "values" in r and "accuracy" in r["values"]:
                chance = 1 / len(r["options"]) if r["options"] else 0.0
                yield r["id"], (r["values"]["accuracy"], r["group"], chance)


def _by_item(done: Run, variant: str) -> dict[str, list[tuple[float, str, float]]]:
    """Item -> the answers to all its rotations."""
    found: dict[str, list[tuple[float, str, float]]] = {}
    for path in (done.folder / "records").glob(f"{variant}.*.jsonl"):
        for name, answer in _answers(done, path):
            found.setdefault(name.rpartition("/r")[0] or name, []).append(answer)
    return found


def _finding(name: str, meaning: str, a: Answers, b: Answers) -> Finding:
    both = [key for key in a if key in b]
    return Finding(name, meaning, paired([a[k][0] for k in both], [b[k][0] for k in both], [a[k][1] for k in both]))


def _above_chance(blind: Answers) -> Finding:
    right, pictures, chance = zip(*blind.values(), strict=True)
    return Finding("guessed without looking", "blind - chance", paired(right, chance, pictures))
