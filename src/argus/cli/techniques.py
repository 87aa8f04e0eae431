"""Techniques as they are written on the command line: `fastervlm`, `fastervlm:keep=0.25`, `fastv:keep=0.5,layer=3`."""

from __future__ import annotations

from typing import Any

from argus.core.errors import ArgusError


def technique(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options; values are read as YAML, so numbers are numbers.

    >>> technique("fastv:keep=0.5,layer=3")
    ('fastv', {'keep': 0.5, 'layer': 3})

    Raises:
        ArgusError: an option without a value.
    """
    import re

    import yaml

    name, _, rest = text.partition(":")
    options = {}
    for item in filter(None, re.split(r",(?![^\[]*\])", rest)):  # a comma inside of [ ] belongs to a list
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise ArgusError(f"'{item}' is no option", where=text, hint=f"Write {name}:name=value,name=value.")
        options[key.strip()] = yaml.safe_load(value)
    return name.strip(), options
