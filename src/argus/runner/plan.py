"""A recipe, checked as a whole before anything runs: every name, option, model folder, stage and claim."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from argus.core import claims
from argus.core.errors import ArgusError, RecipeError, UnsupportedError, nearest
from argus.core.recipe import ModelSpec, Recipe, Source, load_recipe
from argus.core.registry import build, technique, validation_text
from argus.evaluation.endpoint_reference import is_endpoint, parse_reference
from argus.evaluation.engine import build_instructions, build_metrics
from argus.evaluation.metrics.base import CostMetric
from argus.evaluation.options import EvaluationOptions, named
from argus.evaluation.scenarios.base import build_scenario, scenario_of
from argus.model.load import resolve
from argus.model.seq2seq import encodes_prompts
from argus.training.options import StageOptions

# Parts of a composed model that may name another model.
REFERENCES = ("language_model", "encoder", "tokenizer", "connector_weights", "instruction_encoder")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe asks for.

    Args:
        source: the recipe and where its keys stand.
        models: variant -> its model line.
        stages: stage -> its options.
        evaluations: name in claims (`objects`, `objects_2`) -> options.
        asked: (variant, evaluation) -> options, where a variant is asked otherwise.
        better: metric -> `higher` or `lower`.
    """

    source: Source
    models: dict[str, ModelSpec]
    stages: dict[str, StageOptions]
    evaluations: dict[str, EvaluationOptions]
    asked: dict[tuple[str, str], EvaluationOptions]
    better: dict[str, str]

    @property
    def recipe(self) -> Recipe:
        """The recipe, overrides applied."""
        return self.source.recipe

    def options(self, variant: str, evaluation: str) -> EvaluationOptions:
        """How a variant is asked in an evaluation."""
        return self.asked.get((variant, evaluation), self.evaluations[evaluation])

    def base(self, variant: str) -> str:
        """What a variant stands on - model, seed, stages; equal for variants that can share one loaded model."""
        changes = self.recipe.variants[variant]
        seed = self.recipe.seed if changes.seed is None else changes.seed
        return json.dumps([self.models[variant].model_dump(by_alias=True), seed, changes.train], sort_keys=True)


def plan(recipe: str | Path, overrides: Sequence[str] = (), *, quick: bool = False) -> Plan:
    """Read a recipe and check everything that can be checked without running it.

    Args:
        recipe: a file, or the slug of a paper.
        overrides: `key=value` with dotted keys.
        quick: shrink samples and steps to a smoke run.

    Raises:
        ArgusError: the first thing that is wrong, with file and line.
    """
    source = load_recipe(recipe, overrides, quick=quick)
    found = source.recipe
    stages = {name: _stage(source, name) for name in found.stages}
    if not found.evaluate and not any(v.train for v in found.variants.values()):
        raise RecipeError("nothing to do: no variant trains and nothing is evaluated", where=str(source.file))
    evaluations = _evaluations(source)
    better = _buildable(source, evaluations)
    models = {name: _model(source, name) for name in found.variants}
    for name, variant in found.variants.items():
        for name_, options in variant.attach.items():
            with _at(source, "variants", name, "attach", name_):
                made = build(technique(name_).kind, name_, options)
                if calibrate := getattr(made.options, "calibrate", None):
                    scenario_of(calibrate.scenario)
    asked = _asked_otherwise(source, evaluations)
    for (name, _), otherwise in asked.items():
        with _at(source, "variants", name, "ask"):
            build_scenario(otherwise)
            build_instructions(otherwise)
            build("inferencer", *named(otherwise.inferencer))
    for name in found.variants:
        for evaluation, usual in evaluations.items():
            with _at(source, "variants", name):
                _check_view(models[name], asked.get((name, evaluation), usual))
                _check_decoder(models[name], found.variants[name].attach, usual)
    made = Plan(source, models, stages, evaluations, asked, better)
    _check_claims(made)
    return made


def asked_in(recipe: Path) -> dict[tuple[str, str], EvaluationOptions]:
    """(variant, evaluation) -> how it was asked, for a run of the past: its models and data may be gone by now."""
    source = load_recipe(recipe)
    evaluations = _evaluations(source)
    usual = {(variant, name): options for variant in source.recipe.variants for name, options in evaluations.items()}
    return {**usual, **_asked_otherwise(source, evaluations)}


@contextmanager
def _at(source: Source, *path: str | int) -> Iterator[None]:
    """Puts file and line in front of what goes wrong inside."""
    try:
        yield
    except ArgusError as error:
        raise RecipeError(error.text(), where=source.where(path)) from None


def _stage(source: Source, name: str) -> StageOptions:
    options = cast(StageOptions, source.check(StageOptions, source.recipe.stages[name], ("stages", name)))
    with _at(source, "stages", name, "objective"):
        build("objective", options.objective_name(), options.objective_options())
    if options.tuner is not None:
        with _at(source, "stages", name, "tuner"):
            build("tuner", *next(iter(options.tuner.items())))
    for domain in options.data.world:
        with _at(source, "stages", name, "data"):
            build("domain", domain, options.data.domains.get(domain))
    for file in options.data.files:
        if not Path(file).exists():
            raise RecipeError(f"training data '{file}' does not exist", where=source.where(("stages", name, "data", "files")))
    return options


ASKABLE = ("scenario", "instruction", "inferencer", "visual_tokens", "view")


def _asked_otherwise(source: Source, evaluations: Mapping[str, EvaluationOptions]) -> dict[tuple[str, str], EvaluationOptions]:
    """The evaluations of variants that are asked otherwise. They must be asked about the same items, or nothing is compared."""
    found = {}
    for variant, changes in source.recipe.variants.items():
        for key in changes.ask:
            if key not in ASKABLE:
                raise RecipeError(
                    f"a variant can be asked by another {', '.join(ASKABLE)}, not by another '{key}'.",
                    where=source.where(("variants", variant, "ask", key)),
                    hint=nearest(key, ASKABLE),
                )
        for name, options in evaluations.items() if changes.ask else ():
            merged = {**options.model_dump(), **changes.ask}
            found[variant, name] = cast(EvaluationOptions, source.check(EvaluationOptions, merged, ("variants", variant, "ask")))
    return found


def _evaluations(source: Source) -> dict[str, EvaluationOptions]:
    """Name in claims -> options, in the recipe's order; nothing is built."""
    found: dict[str, EvaluationOptions] = {}
    for index, data in enumerate(source.recipe.evaluate):
        options = cast(EvaluationOptions, source.check(EvaluationOptions, data, ("evaluate", index)))
        name = re.sub(r"\W", "_", title(options).split(",")[0].rpartition("/")[2])
        again = sum(re.fullmatch(rf"{name}(_\d+)?", known) is not None for known in found)
        found[f"{name}_{again + 1}" if again else name] = options
    return found


def _buildable(source: Source, evaluations: Mapping[str, EvaluationOptions]) -> dict[str, str]:
    """Metric -> its better direction; every part of every evaluation is there and its options are right."""
    better: dict[str, str] = {}
    for index, options in enumerate(evaluations.values()):
        with _at(source, "evaluate", index, "scenario"):
            build_scenario(options)
        with _at(source, "evaluate", index, "instruction"):
            build_instructions(options)
        with _at(source, "evaluate", index, "inferencer"):
            build("inferencer", *named(options.inferencer))
        with _at(source, "evaluate", index, "metrics"):
            metrics = build_metrics(options)
        for name, metric in metrics.items():
            rate = isinstance(metric, CostMetric) and metric.unit.endswith("/s")
            better[name] = "higher" if rate else metric.better
    return better


def _model(source: Source, variant: str) -> ModelSpec:
    try:
        spec = source.recipe.variant_model(variant)
    except ValidationError as error:
        raise RecipeError(validation_text(error, ModelSpec), where=source.where(("variants", variant, "model"))) from None
    parts = spec.compose or {}
    references = [("from", spec.reference), *(("compose", parts.get(part)) for part in REFERENCES)]
    for key, reference in references:
        if isinstance(reference, str):
            changed = key in source.recipe.variants[variant].model
            with _at(source, *(("variants", variant, "model") if changed else ("model",)), key):
                if key == "from" and is_endpoint(reference):
                    _endpoint(source.recipe, variant, reference)
                else:
                    resolve(reference)
    return spec


def _check_view(spec: ModelSpec, options: EvaluationOptions) -> None:
    """The options of a view that a model is asked with, where the recipe says which view it has."""
    if options.view and spec.compose is not None:
        name, own = named(spec.compose.get("view", "square"))
        build("view", name, {**own, **options.view})


def _check_decoder(spec: ModelSpec, attached: Iterable[str], options: EvaluationOptions) -> None:
    """What acts in the layers of a decoder, or counts over them, has none that reads the prompt where an encoder does."""
    parts = spec.compose or {}
    if (spec.reference and is_endpoint(spec.reference)) or not encodes_prompts(parts or spec.reference):
        return
    costs = [name for name, metric in build_metrics(options).items() if isinstance(metric, CostMetric)]
    backbone = [named(parts["backbone"])[0]] if parts.get("backbone") else []
    if names := [*backbone, *attached, *costs]:
        raise UnsupportedError(
            f"{', '.join(names)}: the language model reads prompts with an encoder, and this is done in the layers of a decoder.",
            hint="Choose a causal language model.",
        )


def _endpoint(recipe: Recipe, variant: str, reference: str) -> None:
    """A model behind an endpoint is only asked: nothing can be attached to it, trained or measured inside."""
    parse_reference(reference)
    changes = recipe.variants[variant]
    if changes.attach or changes.train:
        done = f"attach {', '.join(changes.attach)}" if changes.attach else f"train {', '.join(changes.train)}"
        raise UnsupportedError(f"variant '{variant}' cannot {done}: its model is behind an endpoint")


def _check_claims(made: Plan) -> None:
    """Claims name what will be measured; which families of questions there are is known only afterwards."""
    known = set()
    trained = {f"{name}.{stage}" for name, variant in made.recipe.variants.items() for stage in variant.train}
    for variant in made.recipe.variants:
        for evaluation, options in made.evaluations.items():
            for metric in options.metrics:
                known |= {f"{variant}.{evaluation}.{named(metric)[0]}"}
                if is_short(made, named(metric)[0]):
                    known |= {f"{variant}.{named(metric)[0]}"}
    for index, text in enumerate(made.recipe.claims):
        for name in claims.parse(text).names():
            plain = name.partition("[")[0]
            if plain.rpartition(".")[0] in trained:
                continue  # what a stage logs is known only afterwards
            if plain not in known:
                raise RecipeError(
                    f"the claim names '{plain}', which will not be measured.",
                    where=made.source.where(("claims", index)),
                    hint=nearest(plain, known),
                )


def title(options: EvaluationOptions) -> str:
    """An evaluation for people: `world/objects`, and how it is asked where that is not the plain way.

    Claims use its last word, `objects`; further evaluations of the same name are `objects_2`, `objects_3`, ...
    """
    scenario, settings = named(options.scenario)
    parts = [f"{scenario}/{settings['domain']}" if scenario == "world" else scenario]
    parts += [f"{word} {part}" for word, part, usual in _asked(options) if part != usual]
    return ", ".join(parts)


def _asked(options: EvaluationOptions) -> tuple[tuple[str, str, str], ...]:
    given = options.instruction if isinstance(options.instruction, list) else [options.instruction]
    return (
        ("instruction", " + ".join(named(one)[0] for one in given), "plain"),
        ("inferencer", named(options.inferencer)[0], "likelihood"),
    )


def is_short(made: Plan, metric: str) -> bool:
    """Whether `variant.metric` says enough: one evaluation alone measures this metric."""
    return sum(metric in [named(m)[0] for m in options.metrics] for options in made.evaluations.values()) == 1
