"""A change of the language model, added to a model that is already there: composed by Argus, or of another family.

The model's config names it and its weights are the model's, so `save_pretrained` keeps both and `argus.model.load` brings them
back. In a composed model it is a backbone like those that the model was composed with. The config of another family gets an entry
`argus_backbone`; transformers alone loads such a folder as the model without the change, and says which weights it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from argus.core.errors import ModelError, UnsupportedError
from argus.core.registry import Options, build, check_options, component
from argus.model.anatomy import anatomy
from argus.model.backbones.base import Backbone
from argus.model.backbones.positional import Positional
from argus.model.parts import ArgusParts

RECORD = "argus_backbone"  # entry in the config of another family's model


def add_backbone(model: Any, name: str, options: Options | dict[str, Any]) -> Backbone:
    """Add a change, or find the same one that was added before.

    Args:
        model: a model of a family that `argus.model.anatomy` knows.
        name: of a backbone.

    Raises:
        ModelError: the model has the change with other options.
        UnsupportedError: the change cannot be added to this model.
    """
    kind: type[Backbone] = component("backbone", name).load()
    options = check_options("backbone", name, kind.Options, options)
    parts = anatomy(model)
    root, config = parts.root, parts.config
    there = getattr(root, kind.part, None)
    if there is not None:
        if there.options != options:
            raise ModelError(f"the model has '{name}' already, with other options: {there.options.model_dump()}")
        return there
    if kind.fusion != "decoder" or not issubclass(kind, Positional):
        raise UnsupportedError(f"'{name}' cannot be added to a model.", hint=f"Compose one: backbone: {{{name}: ...}}.")
    change: Positional = build("backbone", name, options, language_model=parts.language_model)
    root.add_module(kind.part, change.train(root.training))
    if isinstance(root, ArgusParts):
        config.backbone = {**config.backbone, name: options.model_dump()}
        root._backbones.append(kind.part)
    else:
        setattr(config, RECORD, {**getattr(config, RECORD, {}), name: options.model_dump()})
        words = torch.tensor(parts.visual_token_ids())
        change.listen(root, parts.language_model, words, parts.picture_inputs)
    return change


@contextmanager
def expected(config: Any) -> Iterator[None]:
    """While a model loads: weights of what its config names, and is added afterwards, are nothing to warn of."""
    parts = [component("backbone", name).load().part for name in getattr(config, RECORD, {})]
    before = PreTrainedModel._keys_to_ignore_on_load_unexpected
    PreTrainedModel._keys_to_ignore_on_load_unexpected = [*(before or []), *(rf"(^|\.){part}\." for part in parts)]
    try:
        yield
    finally:
        PreTrainedModel._keys_to_ignore_on_load_unexpected = before


def restore_backbones(model: Any, folder: Path) -> None:
    """Add what another family's config names, with its weights in a folder's safetensors.

    Raises:
        ModelError: a weight is missing.
    """
    for name, options in getattr(model.config, RECORD, {}).items():
        change = add_backbone(model, name, options)
        stored = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  no mapping
                    before, found, own = key.partition(f"{change.part}.")
                    if found and (not before or before.endswith(".")):
                        stored[own] = file.get_tensor(key)
        missing, unexpected = change.load_state_dict(stored, strict=False)
        if missing or unexpected:
            raise ModelError(
                f"the weights of '{name}' do not fit: missing {missing[:3]}, unexpected {unexpected[:3]}", where=str(folder)
            )
