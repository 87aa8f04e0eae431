"""Components by name: typed, lazy, checked before anything runs.

Each package that holds components lists them in its `__init__.py` as `COMPONENTS`, one line each, without importing them:
listing names costs nothing. A component is a class with a nested or module-level pydantic `Options` model; it is built as
`cls(options)`. Packages outside Argus add components through the entry-point group `argus.components`, whose objects
are such tuples too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from argus.core.errors import RecipeError, UnknownNameError, nearest


class Options(BaseModel):
    """Base of every component's options: unknown keys are refused, values are checked, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Component:
    """One line of a package's table: what a name means and where its class is.

    Args:
        kind: one of `PACKAGES`.
        name: the name a recipe uses.
        target: `package.module:Class`.
        summary: one sentence for listings.
        paper: slug of the paper in `argus papers`, if it comes from one.
    """

    kind: str
    name: str
    target: str
    summary: str
    paper: str | None = None

    def load(self) -> Any:
        """Import and return the class."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


# Where each kind's table lives. A package appears here when its first component arrives.
PACKAGES: dict[str, str] = {
    "domain": "argus.world",
    "view": "argus.model.views",
    "encoder": "argus.model.encoders",
    "connector": "argus.model.connectors",
    "backbone": "argus.model.backbones",
    "reducer": "argus.methods.reduction",
    "decoding": "argus.methods.decoding",
    "search": "argus.methods.search",
    "objective": "argus.training.objectives",
    "tuner": "argus.training.tuners",
    "scenario": "argus.evaluation.scenarios",
    "instruction": "argus.evaluation.instructions",
    "inferencer": "argus.evaluation.inferencers",
    "metric": "argus.evaluation.metrics",
    "judge": "argus.evaluation.judges",
}


TECHNIQUES = ("reducer", "decoding")  # kinds that `argus.attach` puts on a loaded model; a name stands in one of them only


@cache
def _table() -> dict[str, dict[str, Component]]:
    table: dict[str, dict[str, Component]] = {kind: {} for kind in PACKAGES}
    rows: list[Component] = []
    for package in dict.fromkeys(PACKAGES.values()):
        rows.extend(import_module(package).COMPONENTS)
    for point in entry_points(group="argus.components"):
        rows.extend(point.load())
    for row in rows:
        known = table.setdefault(row.kind, {})
        if row.name in known:
            raise UnknownNameError(f"{row.kind} '{row.name}' is registered twice", where=row.target)
        known[row.name] = row
    return table


def components(kind: str | None = None) -> list[Component]:
    """All components of one kind (or of every kind), sorted by kind and name. Imports nothing heavy."""
    kinds = [_kind(kind)] if kind else sorted(_table())
    return [_table()[k][n] for k in kinds for n in sorted(_table()[k])]


def component(kind: str, name: str) -> Component:
    """The table line of one component; an unknown name gives the nearest valid one."""
    known = _table()[_kind(kind)]
    if name not in known:
        raise UnknownNameError(f"unknown {kind} '{name}'.", hint=nearest(name, known))
    return known[name]


def technique(name: str) -> Component:
    """The table line of what attaches to a loaded model: a reducer or a decoding method."""
    known = {row.name: row for kind in TECHNIQUES for row in _table()[kind].values()}
    if name not in known:
        raise UnknownNameError(f"unknown technique '{name}'.", hint=nearest(name, known))
    return known[name]


def options_type(kind: str, name: str) -> type[Options]:
    """The pydantic model of a component's options."""
    return component(kind, name).load().Options


def build(kind: str, name: str, options: Mapping[str, Any] | Options | None = None, **context: Any) -> Any:
    """Build a component from its name and options.

    Args:
        context: what a kind's constructors take beside the options (a connector: the widths it joins).

    Raises:
        UnknownNameError: no such name.
        RecipeError: options of the wrong name, type or range; the message names the field and the nearest valid one.
    """
    cls = component(kind, name).load()
    return cls(check_options(kind, name, cls.Options, options), **context)


def check_options(kind: str, name: str, model: type[Options], options: Mapping[str, Any] | Options | None) -> Options:
    """Validate `options` against a component's model, with an error a person can act on."""
    if isinstance(options, model):
        return options
    try:
        return model.model_validate(dict(options or {}))
    except ValidationError as error:
        raise RecipeError(validation_text(error, model), where=f"{kind} '{name}'") from None


def validation_text(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as one line each: field, what was wrong, the nearest valid name."""
    lines = []
    for item in error.errors():
        field = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown option '{field}'. {nearest(str(item['loc'][-1]), _names(model, item['loc'][:-1]))}")
        elif item["type"] == "missing":
            lines.append(f"option '{field}' is required.")
        else:
            lines.append(f"option '{field}': {item['msg']}, got {item['input']!r}.")
    return " ".join(lines)


def _names(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The field names, as a file spells them, of the model that stands at a path inside another."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = [field.annotation, *get_args(field.annotation)] if field else []
        inner += [a for i in inner for a in get_args(i)]
        model = next((i for i in inner if isinstance(i, type) and issubclass(i, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _kind(kind: str) -> str:
    if kind not in _table():
        raise UnknownNameError(f"unknown kind of component '{kind}'.", hint=nearest(kind, _table()))
    return kind
