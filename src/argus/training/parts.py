"""Which parts of a model learn, and how fast: by the parts' names, never by patterns over weight names.

A part is a module's name as LLaVA uses them (`vision_tower`, `multi_modal_projector`, `language_model`, `lm_head`), any other
module name in the tree, or a piece of a path where a name alone would be several: `language_model.norm`, `vision_tower.blocks.0`.
A parameter belongs to a part when its path goes through it. `vision_tower.last2` are the last two of the blocks that an encoder's
tokens come through, whatever its family calls them; behind the layer that is read (`feature_layer`), blocks count for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from argus.core.errors import RecipeError, UnsupportedError, nearest
from argus.model.encoders.base import Tower

_LAST = re.compile(r"(.+)\.last([1-9]\d*)")


def part_names(model: nn.Module) -> list[str]:
    """Names that can be given as parts: modules, those inside repeated layers too, and the model's own parameters."""
    names: dict[str, None] = {}
    for path, _ in model.named_modules():
        for component in path.split("."):
            if component and not component.isdigit():
                names.setdefault(component)
    own = (name.removeprefix("model.") for name, _ in model.named_parameters())
    return [*names, *(name for name in own if "." not in name)]


def belongs(parameter: str, part: str) -> bool:
    """Whether a dotted path goes through the part."""
    return f".{part}." in f".{parameter}."


def resolved(model: nn.Module, parts: Sequence[str]) -> list[str]:
    """The parts, with the paths of the blocks that `<encoder>.last<n>` stands for.

    Raises:
        RecipeError: a part that the model does not have.
    """
    known = part_names(model)
    paths = {path: module for path, module in model.named_modules() if path}
    found: list[str] = []
    for part in parts:
        last = _LAST.fullmatch(part)
        name = last[1] if last else part
        if name not in known and not ("." in name and any(belongs(path, name) for path in paths)):
            raise RecipeError(f"the model has no part '{name}'.", hint=nearest(name, known))
        found += _last_blocks(paths, last[1], int(last[2])) if last else [part]
    return found


def _last_blocks(paths: Mapping[str, nn.Module], part: str, count: int) -> list[str]:
    towers = [module for path, module in paths.items() if f".{path}".endswith(f".{part}")]
    if not towers or not all(isinstance(tower, Tower) for tower in towers):
        raise RecipeError(
            f"'{part}' is no encoder whose blocks could be counted.", hint=f"Name a path inside it, like {part}.layers.0."
        )
    blocks = {id(block) for tower in towers if isinstance(tower, Tower) for block in tower.last_blocks(count)}
    return [path for path, module in paths.items() if id(module) in blocks]


@torch.no_grad()
def draw_anew(model: nn.Module, parts: Sequence[str]) -> None:
    """Give parts the weights that new ones start from: the layers' own start, then that of the model they belong to.

    Raises:
        RecipeError: a part that the model does not have.
        UnsupportedError: weights that neither of them draws.
    """
    paths = dict(model.named_modules())
    for part in resolved(model, parts):
        found = {path: module for path, module in paths.items() if f".{path}".endswith(f".{part}")}
        if not found:
            raise UnsupportedError(f"'{part}' cannot be drawn anew: it is a weight, and nothing says how it starts")
        for path, module in found.items():
            owner = _owning(paths, path)
            for weight in module.parameters():
                weight.fill_(torch.nan)
                weight._is_hf_initialized = False
            for layer in reversed(list(module.modules())):  # the inner ones first: what is around may draw them its own way
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
                if owner is not None:
                    owner._init_weights(layer)
            left = [name for name, weight in module.named_parameters() if weight.isnan().any()]
            if left:
                raise UnsupportedError(f"'{part}' cannot be drawn anew: nothing says how {left[0]} starts")


def _owning(paths: Mapping[str, nn.Module], path: str) -> PreTrainedModel | None:
    """The innermost model of transformers around a module."""
    around = [p for p, m in paths.items() if isinstance(m, PreTrainedModel) and (not p or f"{path}.".startswith(f"{p}."))]
    found: Any = paths[max(around, key=len)] if around else None
    return found


def set_trainable(model: nn.Module, train: Sequence[str] = (), freeze: Sequence[str] = ()) -> dict[str, int]:
    """Freeze everything but the parts that learn.

    Args:
        train: parts that learn; all when empty.
        freeze: parts that stay fixed nevertheless.

    Returns:
        Trainable parameters per top-level part (only parts that learn).

    Raises:
        RecipeError: a part that the model does not have, or nothing left to train.
    """
    learning, fixed = resolved(model, train), resolved(model, freeze)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        learns = (not train or any(belongs(name, p) for p in learning)) and not any(belongs(name, p) for p in fixed)
        parameter.requires_grad_(learns)
        if learns:
            path = [c for c in name.split(".") if c not in ("model", "base_model", "techniques")]
            counts[path[0]] = counts.get(path[0], 0) + parameter.numel()
    if not counts:
        raise RecipeError(f"nothing is left to train: train={list(train)}, freeze={list(freeze)}")
    return counts


def parameter_groups(
    model: nn.Module, learning_rate: float, rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, object]]:
    """AdamW groups: per part its learning rate; no decay on biases, norms, scalars and tables of positions.

    A parameter that belongs to several named parts takes the rate of the innermost one.
    """
    by_part = {one: rate for part, rate in rates.items() for one in resolved(model, [part])}
    groups: dict[tuple[float, float], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        path = name.split(".")
        inner = max((p for p in by_part if belongs(name, p)), key=lambda p: f".{name}.".rfind(f".{p}.") + len(p), default="")
        rate = by_part.get(inner, learning_rate)
        decay = weight_decay if parameter.ndim >= 2 and "position" not in path[-1] else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)  # type: ignore[attr-defined]
    return list(groups.values())
