"""Where the parts of a loaded multimodal model are: vision tower, connector, decoder layers, visual tokens of an input.

Techniques attach to these parts instead of to modelling code, so that one implementation serves every family. A
family is recognised by the `model_type` in the model's config, never by a name or folder. A new family is one more
small class.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from argus.core.errors import UnsupportedError, nearest

if TYPE_CHECKING:
    from argus.model.anatomy.base import Anatomy

__all__ = ["anatomy", "families"]

# model_type in the config -> class. The first line of a class's docstring describes it in listings.
FAMILIES: dict[str, str] = {
    "argus": "argus.model.anatomy.argus:Argus",
    "internvl": "argus.model.anatomy.internvl:InternVL",
    "llava": "argus.model.anatomy.llava:Llava",
    "llava_next": "argus.model.anatomy.llava_next:LlavaNext",
    "llava_onevision": "argus.model.anatomy.llava_onevision:LlavaOnevision",
    "qwen2_5_vl": "argus.model.anatomy.qwen2_5_vl:Qwen25VL",
    "qwen2_vl": "argus.model.anatomy.qwen2_vl:Qwen2VL",
}


def anatomy(model: Any) -> Anatomy:
    """The parts of a loaded model; adapters of PEFT are looked through.

    Raises:
        UnsupportedError: a family that is not known; the message names those that are.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = getattr(getattr(base, "config", None), "model_type", type(base).__name__)
    if kind not in FAMILIES:
        raise UnsupportedError(f"the anatomy of model type '{kind}' is not known.", hint=nearest(str(kind), FAMILIES))
    return _load(kind)(base)


def families() -> list[tuple[str, str]]:
    """The known families: (model type, what it covers), for listings."""
    return [(kind, (_load(kind).__doc__ or "").strip().splitlines()[0]) for kind in sorted(FAMILIES)]


def _load(kind: str) -> type[Anatomy]:
    module, _, name = FAMILIES[kind].partition(":")
    return getattr(import_module(module), name)
