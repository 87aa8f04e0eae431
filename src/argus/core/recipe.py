"""Recipes: one YAML file is one job - model, variants, training stages, evaluation, claims.

    name: FasterVLM against random pruning
    model: {from: argus/tiny-vlm}
    variants:
      full: {}
      fastervlm: {attach: {fastervlm: {keep: 0.25}}}
    evaluate:
      - {scenario: world/objects, samples: 2000, metrics: [accuracy, prefill_flops]}
    claims:
      - fastervlm.accuracy >= 0.95 * full.accuracy

A recipe may extend another one (`extends: other.yaml`) and overrides it key by key; stages may live in files of their own.
Everything is checked before anything runs, and an error names the file, the line and the nearest valid name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from argus.core import claims
from argus.core.errors import ArgusError, RecipeError, nearest
from argus.core.registry import validation_text
from argus.core.yaml_lines import Path_, read_yaml

QUICK_SAMPLES, QUICK_STEPS = 64, 20
PARTS = ("connector", "view", "backbone")  # of a composed model that are given as {name: options}


class ModelSpec(BaseModel):
    """Which model: a reference (`from`) or parts (`compose`)."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    reference: str | None = Field(None, alias="from", description="shipped model, folder, hub name, or openai:<name>@<url>")
    compose: dict[str, Any] | None = Field(None, description="parts of a model to build")
    revision: str | None = Field(None, description="commit or tag on the hub")
    dtype: str | None = Field(None, description="float32, bfloat16, ...")
    device: str | None = Field(None, description="cpu, cuda, ...")
    attention: str | None = Field(None, description="attention implementation: sdpa, eager, matmul")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")

    @model_validator(mode="after")
    def _one(self) -> ModelSpec:
        if (self.reference is None) == (self.compose is None):
            raise ValueError("give either 'from' (a model) or 'compose' (its parts)")
        return self


class Variant(BaseModel):
    """What one column of the comparison changes."""

    model_config = ConfigDict(extra="forbid")

    attach: dict[str, dict[str, Any]] = Field(default_factory=dict, description="technique -> its options")
    train: list[str] = Field(default_factory=list, description="stages, in order")
    model: dict[str, Any] = Field(default_factory=dict, description="changes to the model line")
    ask: dict[str, Any] = Field(
        default_factory=dict,
        description="changes to every evaluation: another scenario, instruction, inferencer, number of visual_tokens, or options "
        "of the view",
    )
    seed: int | None = Field(None, description="seed of new weights")

    @field_validator("attach", mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        return {k: v or {} for k, v in value.items()} if isinstance(value, dict) else value


class Recipe(BaseModel):
    """One job."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="what the job is called; names its run folders")
    description: str = Field("", description="what it shows, for the report")
    paper: str | None = Field(None, description="slug of the paper it measures")
    seed: int = Field(0, description="seed of new weights")
    model: ModelSpec
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict, description="training stages by name")
    variants: dict[str, Variant] = Field(
        default_factory=lambda: {"full": Variant.model_validate({})}, description="what is compared"
    )
    evaluate: list[dict[str, Any]] = Field(default_factory=list, description="evaluations")
    claims: list[str] = Field(default_factory=list, description="comparisons over measured numbers")
    quick: dict[str, Any] = Field(default_factory=dict, description="changes that --quick makes")

    def digest(self) -> str:
        """Hash of everything that decides the numbers; equal digests may share a run folder."""
        return hashlib.sha256(json.dumps(self.model_dump(by_alias=True), sort_keys=True).encode()).hexdigest()[:16]

    def variant_model(self, name: str) -> ModelSpec:
        """The model line of a variant."""
        changes = self.variants[name].model
        base = self.model.model_dump(by_alias=True)
        if "from" in changes:
            base["compose"] = None
        elif "compose" in changes:
            base["from"] = None
            parts = base["compose"] or {}
            for part in PARTS:  # {name: options}: another name is another part, and nothing of the first one's is left
                if isinstance(changes["compose"], Mapping) and set(_named(parts, part)) != set(_named(changes["compose"], part)):
                    parts = {k: v for k, v in parts.items() if k != part or part not in changes["compose"]}
            base["compose"] = parts or None
        return ModelSpec.model_validate(_merge(base, changes))


@dataclass(slots=True)
class Source:
    """A loaded recipe with where its keys stand.

    Args:
        recipe: the recipe, overrides applied.
        file: where it was read from.
        lines: key path -> (file, line); keys that an override set have none.
    """

    recipe: Recipe
    file: Path
    lines: dict[Path_, tuple[Path, int]] = field(default_factory=dict)

    def where(self, path: Sequence[str | int]) -> str:
        """`file:line` of a key path, or of the nearest key above it."""
        key = tuple(path)
        while key and key not in self.lines:
            key = key[:-1]
        file, line = self.lines.get(key, (self.file, 1))
        return f"{file}:{line}"

    def check(self, model: type[BaseModel], data: Any, path: Sequence[str | int]) -> BaseModel:
        """Validate a part of the recipe against a model, with file and line in the error."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]["loc"]
            raise RecipeError(validation_text(error, model), where=self.where([*path, *first])) from None


def recipe_roots() -> list[Path]:
    """Folders that recipes are looked for in: here, the checkout's, and the installed package's."""
    checkout = Path(__file__).resolve().parents[3] / "recipes"
    found = [Path("recipes"), checkout, Path(str(files("argus") / "recipes"))]
    return [p for p in dict.fromkeys(found) if p.is_dir()]


def find_recipe(name: str | Path) -> Path:
    """A recipe's file from a path, a file name, or the slug of a paper.

    Raises:
        RecipeError: there is none; the nearest name is given.
    """
    path = Path(name)
    if path.is_file():
        return path
    known: dict[str, Path] = {}
    for root in recipe_roots():
        for file in sorted(root.rglob("*.yaml")):
            known.setdefault(file.stem, file)
            known.setdefault(str(file.relative_to(root)), file)
            known.setdefault(str(Path("recipes") / file.relative_to(root)), file)
    if str(name) in known:
        return known[str(name)]
    raise RecipeError(f"there is no recipe '{name}'.", hint=nearest(str(name), [k for k in known if "/" not in k]))


def load_recipe(name: str | Path, overrides: Sequence[str] = (), *, quick: bool = False) -> Source:
    """Read, extend, override and check a recipe.

    Args:
        name: path, file name or slug.
        overrides: `key=value` with dotted keys, e.g. `evaluate.0.samples=100`.
        quick: shrink samples and steps to a smoke run.

    Raises:
        RecipeError: anything that is wrong with it.
    """
    file = find_recipe(name)
    data, lines = _extended(file, ())
    if not isinstance(data, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=str(file))
    stages: Any = data.get("stages")
    for stage, spec in list(stages.items()) if isinstance(stages, dict) else ():
        if isinstance(spec, str):
            stages[stage] = _stage(file, stage, spec, lines)
    for change in overrides:
        _override(data, change)
    source = Source(Recipe.model_construct(), file, lines)
    source.recipe = source.check(Recipe, data, ())  # type: ignore[assignment]
    if quick:
        data = _merge(_shrunk(data), data.get("quick") or {})
        source.recipe = source.check(Recipe, data, ())  # type: ignore[assignment]
    _check_names(source)
    return source


def dump(recipe: Recipe) -> str:
    """A recipe as YAML; reading it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(by_alias=True, exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120)


def _extended(file: Path, chain: tuple[Path, ...]) -> tuple[Any, dict[Path_, tuple[Path, int]]]:
    if file.resolve() in chain:
        raise RecipeError("recipes extend each other in a circle", where=str(file))
    data, own = read_yaml(file)
    lines = {path: (file, line) for path, line in own.items()}
    if not isinstance(data, dict) or "extends" not in data:
        return data, lines
    base_name = str(data.pop("extends"))
    beside = file.parent / base_name
    try:
        base_file = beside if beside.is_file() else find_recipe(base_name)
    except RecipeError as error:
        raise RecipeError(error.text(), where=f"{file}:{own[('extends',)]}") from None
    base, base_lines = _extended(base_file, (*chain, file.resolve()))
    return _merge(base, data), {**base_lines, **lines}


def _stage(file: Path, stage: str, reference: str, lines: dict[Path_, tuple[Path, int]]) -> Any:
    """A stage that lives in a file: a path beside the recipe, or a name in recipes/stages/."""
    candidates = [file.parent / reference, *(root / "stages" / f"{reference}.yaml" for root in recipe_roots())]
    for candidate in candidates:
        if candidate.is_file():
            data, own = read_yaml(candidate)
            lines.update({("stages", stage, *path): (candidate, line) for path, line in own.items()})
            return data
    known = [p.stem for root in recipe_roots() for p in (root / "stages").glob("*.yaml")]
    place = lines.get(("stages", stage), (file, 1))
    raise RecipeError(f"there is no stage '{reference}'.", where=f"{place[0]}:{place[1]}", hint=nearest(reference, known))


def _check_names(source: Source) -> None:
    """Stages, variants and claims refer to each other by names that exist."""
    recipe = source.recipe
    for name, variant in recipe.variants.items():
        if not name.isidentifier():
            raise RecipeError(
                f"a variant's name is a word that claims can use, not '{name}'", where=source.where(("variants", name))
            )
        for index, stage in enumerate(variant.train):
            if stage not in recipe.stages:
                raise RecipeError(
                    f"variant '{name}' trains stage '{stage}', which is not there.",
                    where=source.where(("variants", name, "train", index)),
                    hint=nearest(stage, recipe.stages),
                )
    for index, text in enumerate(recipe.claims):
        try:
            for used in claims.parse(text).names():
                variant_name = used.split(".")[0]
                if variant_name not in recipe.variants:
                    raise RecipeError(f"the claim names variant '{variant_name}'.", hint=nearest(variant_name, recipe.variants))
        except ArgusError as error:
            raise RecipeError(error.text(), where=source.where(("claims", index))) from None


def _named(compose: Mapping[str, Any], part: str) -> Sequence[str]:
    """What a part is called: it is a name, or {name: options}."""
    value = compose.get(part) or ()
    return [value] if isinstance(value, str) else list(value)


def _merge(base: Any, changes: Any) -> Any:
    """Mappings merge key by key; everything else is replaced."""
    if isinstance(base, Mapping) and isinstance(changes, Mapping):
        return {**base, **{k: _merge(base.get(k), v) for k, v in changes.items()}}
    return changes


def _override(data: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign:
        raise RecipeError(f"'{change}' is not of the form key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    path = key.strip().split(".")
    here: Any = data
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        place = f"override '{change}'"
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise RecipeError(f"'{'.'.join(path[:depth])}' has entries 0 to {len(here) - 1}, not '{part}'", where=place)
            if last:
                here[int(part)] = value
            else:
                here = here[int(part)]
        elif isinstance(here, dict):
            if depth == 0 and part not in Recipe.model_fields:
                raise RecipeError(f"a recipe has no key '{part}'.", where=place, hint=nearest(part, Recipe.model_fields))
            if last:
                here[part] = value
            else:
                if here.get(part) is None:
                    here[part] = {}
                here = here[part]
        else:
            raise RecipeError(f"'{'.'.join(path[:depth])}' is a single value, it has no '{part}'", where=place)


def _shrunk(data: dict[str, Any]) -> dict[str, Any]:
    """At most `QUICK_SAMPLES` questions per evaluation and `QUICK_STEPS` steps per stage."""
    small = dict(data)
    small["evaluate"] = [{**e, "samples": _at_most(e.get("samples"), QUICK_SAMPLES)} for e in data.get("evaluate") or []]
    small["stages"] = {n: {**s, "steps": _at_most(s.get("steps"), QUICK_STEPS)} for n, s in (data.get("stages") or {}).items()}
    return small


def _at_most(given: Any, limit: int) -> Any:
    """A number that is no greater than the limit; what is no number is left for the check."""
    return limit if given is None else min(given, limit) if isinstance(given, int) else given
