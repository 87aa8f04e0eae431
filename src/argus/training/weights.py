"""Weights of a stage on disk: of the model, and of the techniques that learned beside it."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor, nn

from argus.core.errors import ModelError
from argus.methods.learned import save_parts


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights saved in `folder` into `model`.

    Raises:
        ModelError: a tensor is missing or has another shape.
    """
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError("no .safetensors file", where=str(folder))
    state: dict[str, Tensor] = {}
    for file in files:
        state.update(load_file(file))
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        raise ModelError(
            f"the saved weights do not fit the model: missing {missing[:4]}, unexpected {unexpected[:4]}",
            where=str(folder),
        )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is whole: with a trainer's state, which is written last."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_json(path / "trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def technique_file(folder: Path, name: str) -> Path:
    """Where a stage or a checkpoint keeps the parts of a technique."""
    return folder / "techniques" / f"{name}.safetensors"


def save_techniques(techniques: nn.ModuleDict, folder: Path) -> None:
    """Write the parts of each technique."""
    for name, parts in techniques.items():
        save_parts(parts, technique_file(folder, name))
