"""Pictures cut otherwise while a model is loaded: how many tiles there are is a setting of processor and config, not of weights.

InternLM-XComposer2-4KHD (arXiv 2404.06512) is trained with up to 25 or 55 tiles and asked with up to 65:

    with viewing(model, processor, {"hd_num": 9}):
        inputs = processor(images=..., text=..., return_tensors="pt")
        model.generate(**inputs)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.processor import ArgusProcessor
from argus.model.views.texts import picture_texts, tag_length


@contextmanager
def viewing(model: Any, processor: Any, changes: Mapping[str, Any]) -> Iterator[None]:
    """Inside, pictures are cut by other options of the model's own view.

    Args:
        model: a composed model.
        processor: its processor.
        changes: option -> value; without any, nothing changes.

    Raises:
        RecipeError: options that the view does not have.
        UnsupportedError: a model of another family; options with which the view has other learned vectors or writes other texts
            than those that the model was trained with.
    """
    if not changes:
        yield
        return
    if not isinstance(processor, ArgusProcessor):
        raise UnsupportedError("view: how pictures are cut can be chosen for composed models alone")
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, images, words = base.config, processor.image_processor, processor.tokenizer
    (name, options) = next(iter(config.view.items()))
    before, other = build("view", name, options), {name: {**options, **changes}}
    after = build("view", name, other[name])
    texts = [(tag_length(one, words), picture_texts(one, words) if config.picture_texts else None) for one in (before, after)]
    if (before.learned, before.tasks) != (after.learned, after.tasks) or texts[0] != texts[1]:
        raise UnsupportedError(
            f"view: with {dict(changes)} the view '{name}' has other learned vectors or writes other texts than the model knows.",
            hint="Compose a model with these options and train it.",
        )
    known = config.view, images.view
    config.view = images.view = other
    try:
        yield
    finally:
        config.view, images.view = known
