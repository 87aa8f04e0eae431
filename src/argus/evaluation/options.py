"""What an evaluation can be told. An evaluation is one entry of a recipe's `evaluate:`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from argus.core.registry import Options


def _one(value: str | dict[str, dict[str, Any]]) -> str | dict[str, dict[str, Any]]:
    if isinstance(value, dict) and len(value) != 1:
        raise ValueError("expected a name or {name: {options}} with one name")
    return value


Named = Annotated[str | dict[str, dict[str, Any]], AfterValidator(_one)]


def _once(value: list[Any]) -> list[Any]:
    names = [named(one)[0] for one in value]
    if again := next((name for n, name in enumerate(names) if name in names[:n]), None):
        raise ValueError(f"'{again}' is named twice, and its numbers would be under one name")
    return value


Different = Annotated[list[Named], AfterValidator(_once)]


class EvaluationOptions(Options):
    """One evaluation: a scenario asked through an instruction, answered by an inferencer, scored by metrics."""

    scenario: Named = Field(description="what is asked: `world/<domain>`, `file`, or {name: {options}}")
    instruction: Named | list[Named] = Field(
        "plain", description="how it is asked: a name, or {name: {options}}, or several that rewrite a question in turn"
    )
    inferencer: Named = Field("likelihood", description="how the answer is read: a name, or {name: {options}}")
    visual_tokens: int | None = Field(
        None, ge=1, description="visual tokens per tile, for a model whose connector can choose; its most when not given"
    )
    view: dict[str, Any] = Field(
        default_factory=dict,
        description="changed options of the model's own view, e.g. {hd_num: 9}: pictures are cut otherwise than in training",
    )
    metrics: Different = Field(["accuracy"], min_length=1, description="what is measured")
    samples: int | None = Field(2000, ge=1, description="questions to ask; null for all that a finite scenario has")
    seed: int | Literal["fresh"] = Field(
        0, description="which part of the scenario: 0 is the standard set; `fresh` draws a new one and records it"
    )
    batch_size: int = Field(16, ge=1, le=4096, description="pictures held in memory and answered together")
    cost_samples: int = Field(16, ge=1, description="questions on which time, memory and FLOPs are measured")
    examples: int = Field(12, ge=0, le=1000, description="answered items kept in the result for the report")
    blind: bool = Field(False, description="also ask everything without pictures; gives each metric a `blind` value")


def named(value: str | dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """A component as a recipe writes it, `name` or `{name: {options}}`, as (name, options)."""
    if isinstance(value, str):
        return value, {}
    name, options = next(iter(value.items()))
    return name, dict(options)
