"""Which parts of a model learn, and how fast: by the parts' names, never by patterns over weight names.

A part is a module's name as LLaVA uses them (`vision_tower`, `multi_modal_projector`, `language_model`, `lm_head`), or any
other module name in the tree. A parameter belongs to a part when the part's name is one of the components of its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from argus.core.errors import RecipeError, nearest


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
    """Whether a parameter's dotted path goes through the part."""
    return part in parameter.split(".")


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
    known = part_names(model)
    for part in (*train, *freeze):
        if part not in known:
            raise RecipeError(f"the model has no part '{part}'.", hint=nearest(part, known))
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        learns = (not train or any(belongs(name, p) for p in train)) and not any(belongs(name, p) for p in freeze)
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
    known = part_names(model)
    for part in rates:
        if part not in known:
            raise RecipeError(f"learning_rates names '{part}', which the model does not have.", hint=nearest(part, known))
    groups: dict[tuple[float, float], dict[str, object]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        path = name.split(".")
        inner = [p for p in reversed(path) if p in rates]
        rate = rates[inner[0]] if inner else learning_rate
        decay = weight_decay if parameter.ndim >= 2 and "position" not in path[-1] else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)  # type: ignore[attr-defined]
    return list(groups.values())
