"""`run(recipe)`: check, train, attach, evaluate, judge, report; resumable at any moment.

runs/<name>/<time>/
  recipe.yaml, environment.json     what was run, on what
  records/<variant>.<scenario>.jsonl  one line per question, written as it is answered
  results/<variant>.<scenario>.json   the numbers of a finished evaluation
  stages/<variant>/<stage>/         checkpoints and trained models
  metrics.json, report.html, plots/, pictures/
"""

from __future__ import annotations

import json
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from argus.core import claims
from argus.core.progress import console
from argus.core.recipe import ModelSpec, Variant, dump
from argus.core.run import Run
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.results import EvaluationResult
from argus.methods.attached import Attached
from argus.model.viewing import viewing
from argus.report.page import duration, write_page
from argus.report.summary import ALL, BLIND, Evaluated, Result, Summary, Trained
from argus.report.summary import Variant as Compared
from argus.report.tables import tables
from argus.runner import processes
from argus.runner.examples import candidates, choose, draw, left
from argus.runner.held import Held, stage_folder
from argus.runner.plan import Plan, is_short, plan, title

Results = dict[str, dict[str, EvaluationResult]]  # evaluation -> variant -> what it found


def run(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    quick: bool = False,
    fresh: bool = False,
    root: Path = Path("runs"),
) -> Run:
    """Run a recipe.

    Args:
        recipe: a file, or the slug of a paper.
        overrides: `key=value` with dotted keys.
        quick: shrink samples and steps to a smoke run.
        fresh: start anew even if an identical run is unfinished.
        root: folder that run folders are made in.

    Returns:
        The finished run.

    Raises:
        ArgusError: the recipe is wrong, or something a person can fix stopped the run.
        KeyboardInterrupt: the user stopped it; its text says how to go on.
    """
    made = plan(recipe, overrides, quick=quick)
    with processes.joined():
        opened = Run(processes.agreed(lambda: _folder(made, root, fresh)))
        with opened.lock() if processes.first() else nullcontext():
            command = shlex.join(["argus", "run", str(recipe), *overrides, *(["--quick"] if quick else [])])
            try:
                if processes.several():
                    train_all(made, opened)
                if not processes.first():
                    return opened
                summary = carry_out(made, opened, command, quick)
            except KeyboardInterrupt:
                raise interrupted(opened, command, root) from None
            conclude(summary, opened)
    return opened


def interrupted(opened: Run, command: str, root: Path) -> KeyboardInterrupt:
    """What Ctrl-C says: where everything is, and how to go on there."""
    place = "" if root == Path("runs") else f" --root {shlex.quote(str(root))}"
    return KeyboardInterrupt(f"interrupted; everything done so far is kept in {opened.folder}\nTo go on: {command}{place}")


def _folder(made: Plan, root: Path, fresh: bool) -> Path:
    """The folder of the unfinished run of exactly this, or a new one."""
    found = None if fresh else Run.latest_unfinished(made.recipe, root)
    opened = found or Run.create(made.recipe, root)
    console().print(f"{'resuming' if found else 'running'} {made.recipe.name} in {opened.folder}", highlight=False)
    return opened.folder


def train_all(made: Plan, opened: Run) -> None:
    """Every stage of every variant: what all processes do before the first one evaluates."""
    held = Held(made, opened)
    for variant, changes in made.recipe.variants.items():
        if changes.train and not all(_stage_done(made, opened, variant, stage) for stage in changes.train):
            held.train(variant)


def conclude(summary: Summary, opened: Run) -> None:
    """Store what a run found, write its page, and print its tables."""
    summary.save(opened.folder)
    page = write_page(summary, opened.folder)
    opened.finish()
    for table in tables(summary):
        console().print(table)
    console().print(f"report: {page}", highlight=False, soft_wrap=True)


def measured(made: Plan, results: Results) -> dict[str, float]:
    """Every measured number by the names that claims use.

    `variant.evaluation.metric` for all questions and `...metric[group]` for a group of them; without the evaluation where
    only one measures the metric.
    """
    numbers = {}
    for evaluation, variants in results.items():
        for variant, result in variants.items():
            for metric, groups in result.measurements.items():
                names = [f"{variant}.{evaluation}.{metric}"]
                names += [f"{variant}.{metric}"] if is_short(made, metric) else []
                for group, m in groups.items():
                    if m.n:
                        numbers.update({name if group == ALL else f"{name}[{group}]": m.value for name in names})
    return numbers


def learned(made: Plan, opened: Run) -> dict[str, float]:
    """What training ended with, as `variant.stage.number`: the last logged losses and shares, rate, FLOPs, trained parameters.

    The world draws every picture of a stage anew, so that the last shares are measured on pictures never seen before.
    """
    numbers: dict[str, float] = {}
    for variant, changes in made.recipe.variants.items():
        for stage in changes.train:
            done = json.loads((stage_folder(made, opened, variant, stage) / "result.json").read_text(encoding="utf-8"))
            found = {**(done["log"][-1] if done["log"] else {}), **{k: v for k, v in done.items() if isinstance(v, float | int)}}
            found["parameters"] = sum(done["trainable"].values())
            numbers.update({f"{variant}.{stage}.{name}": float(value) for name, value in found.items()})
    return numbers


def carry_out(made: Plan, opened: Run, command: str, quick: bool) -> Summary:
    """Train and evaluate what is not done yet, and judge the claims."""
    held = Held(made, opened)
    results: Results = {name: {} for name in made.evaluations}
    views: dict[str, dict[str, Any]] = {name: {} for name in made.evaluations}
    trained = []
    for variant, changes in made.recipe.variants.items():
        if changes.train and not all(_stage_done(made, opened, variant, stage) for stage in changes.train):
            held.take(variant)
        for name in made.evaluations:
            options = made.options(variant, name)
            if options.seed == "fresh" and results[name]:  # variants are compared on the same questions
                options = options.model_copy(update={"seed": next(iter(results[name].values())).seed})
            results[name][variant], views[name][variant] = _evaluate(held, opened, variant, name, options)
        for stage in changes.train:
            if stage_folder(made, opened, variant, stage) == opened.stage_folder(variant, stage):
                trained.append(_trained(opened, variant, stage))
    numbers = {**learned(made, opened), **measured(made, results)}
    environment = opened.read_json("environment.json")
    started = opened.read_json("state.json").get("started", time.time())
    return Summary(
        name=made.recipe.name,
        description=made.recipe.description,
        model=_model_text(made.recipe.model),
        command=command,
        variants=[Compared(name, *_changes(variant)) for name, variant in made.recipe.variants.items()],
        evaluated=[
            _evaluated(made, opened, name, options, results[name], views[name]) for name, options in made.evaluations.items()
        ],
        claims=[claims.parse(text).evaluate(numbers) for text in made.recipe.claims],
        measured=numbers,
        trained=trained,
        paper=made.recipe.paper or "",
        recipe=dump(made.recipe),
        finished=time.strftime("%Y-%m-%d %H:%M"),
        seconds=round(time.time() - started, 1),
        quick=quick,
        environment={key: str(value) for key, value in environment.items() if value is not None},
    )


def _evaluate(
    held: Held, opened: Run, variant: str, name: str, options: EvaluationOptions
) -> tuple[EvaluationResult, dict[str, Any]]:
    """One variant in one evaluation, and what it kept of the examples' pictures; read back if it was finished before."""
    part = f"{variant}.{name}"
    file = f"results/{part}.json"
    done = opened.read_json(file)
    if done:
        return EvaluationResult.from_record(done["result"]), done["views"]
    model, processor = held.take(variant)
    console().print(f"{variant}: {title(options)}", highlight=False)
    with held.attached(variant) as attachments, opened.records(part) as records:
        result = evaluate(model, processor, options, run_part=records, attachment=asking(attachments))
        with viewing(model, processor, options.view):
            views = left(model, processor, candidates(options, result.seed), attachments)
    (opened.folder / "results").mkdir(exist_ok=True)
    opened.write_json(file, {"result": result.record(), "views": views})
    return result, views


def asking(attachments: Sequence[Attached]) -> Attached | None:
    """The one that decides how questions may be batched: a technique that reads the question, whatever else is attached."""
    return next((a for a in attachments if a.depends_on_question), attachments[-1] if attachments else None)


def _evaluated(
    made: Plan,
    opened: Run,
    name: str,
    options: EvaluationOptions,
    results: Mapping[str, EvaluationResult],
    views: Mapping[str, Mapping[str, Any]],
) -> Evaluated:
    """One evaluation for the report."""
    first = next(iter(results.values()))
    asked = list(candidates(options, first.seed))
    wanted = {question.sample.id for question in asked}
    answers: dict[str, dict[str, Any]] = {}
    for variant in results:
        with opened.records(f"{variant}.{name}") as records:
            answers[variant] = {r["id"]: r for r in records.records() if r["id"] in wanted}
    aside: Counter[str] = Counter()
    for result in results.values():
        for reason, count in {**result.errors, **result.skipped}.items():
            aside[reason] = max(aside[reason], count)
    chosen = choose(asked, answers, options.examples)
    return Evaluated(
        name=name,
        title=title(options),
        questions=first.asked,
        results=[Result(variant, result.measurements, result.seconds) for variant, result in results.items()],
        better={metric: made.better[metric] for metric in first.measurements},
        set_aside=dict(aside),
        chance=_chance(first),
        seed=first.seed,
        examples=draw(chosen, answers, views, opened.folder, name),
    )


def _chance(result: EvaluationResult) -> dict[str, float]:
    """Chance where guessing is possible at all: overall and per family of questions, not per domain."""
    return {
        group: value for group, value in result.chance.items() if value and group != BLIND and not group.startswith("domain ")
    }


def _stage_done(made: Plan, opened: Run, variant: str, stage: str) -> bool:
    return (stage_folder(made, opened, variant, stage) / "result.json").exists()


def _trained(opened: Run, variant: str, stage: str) -> Trained:
    done = json.loads((opened.stage_folder(variant, stage) / "result.json").read_text(encoding="utf-8"))
    figures = {
        "optimiser steps": f"{done['steps']:,}",
        "samples": f"{done['samples']:,}",
        "time": duration(done["seconds"]),
        "rate": f"{done['samples_per_second']:.1f} samples/s",
        "learning": ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in done["trainable"].items()),
    }
    if done["mfu"] is not None:
        figures["model FLOPs utilisation"] = f"{done['mfu']:.1%}"
    return Trained(variant, stage, figures, done["log"])


def _model_text(spec: ModelSpec) -> str:
    return spec.reference or "composed of " + ", ".join(
        f"{part}: {_short(value)}" for part, value in (spec.compose or {}).items()
    )


def _changes(variant: Variant) -> tuple[str, str]:
    """What a variant adds - its techniques, or its stages - and every change in words."""
    attached = [f"{name} ({_options(options)})" if options else name for name, options in variant.attach.items()]
    changed = [f"{key}: {_short(value)}" for key, value in variant.model.items()]
    changed += [f"{key} {_short(value)}" for key, value in variant.ask.items()]
    if variant.seed is not None:
        changed.append(f"seed {variant.seed}")
    trained = [f"trained: {', '.join(variant.train)}"] if variant.train else []
    technique = " + ".join(variant.attach) or " + ".join(variant.train)
    return technique, "; ".join([*changed, *trained, *attached])


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in options.items())


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
