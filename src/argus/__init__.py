"""Argus: a workbench for multimodal large language models.

Heavy libraries are imported on first use, so `import argus` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from argus.methods.attach import attach
    from argus.model.load import load

_LAZY = {"attach": "argus.methods.attach", "load": "argus.model.load"}

__all__ = ["__version__", "attach", "load"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'argus' has no attribute {name!r}")
