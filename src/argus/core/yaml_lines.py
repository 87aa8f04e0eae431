"""YAML with line numbers: plain data, and the line of every key, so that an error can say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from argus.core.errors import RecipeError

Path_ = tuple[str | int, ...]


def read_yaml(path: Path) -> tuple[Any, dict[Path_, int]]:
    """Data of a YAML file (safe types only) and the line of each key path.

    Raises:
        RecipeError: missing file, syntax error, duplicate key, or a tag that asks for an object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"is not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Path_, int] = {}
        if node is not None:
            _walk(node, (), lines, str(path))
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"not valid YAML: {error.problem or error.context}", where=where) from None
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {error}", where=str(path)) from None


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], file: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise RecipeError(f"'{name}' stands here twice, first on line {seen[name]}", where=f"{file}:{line}")
            seen[name] = line
            lines[(*path, name)] = line
            _walk(value, (*path, name), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, file)
