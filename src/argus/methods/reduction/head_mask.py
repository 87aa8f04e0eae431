"""Which heads compute anything for visual tokens, read from a file: layers x query heads, true where a head is kept.

    .npy            a boolean array, as YOPO (arXiv 2410.06169) publishes its masks
    .safetensors    one tensor
    .json           rows of true and false

Numbers 0 and 1 stand for false and true in all of them. `json.dump(attachment.options.heads, file)` writes a mask that was voted
for. Whether a mask has the layers and heads of a model is checked when it is attached.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from argus.core.errors import DataError, nearest


def read_head_mask(path: Path) -> tuple[tuple[bool, ...], ...]:
    """The mask (layers, heads) that a file holds.

    Raises:
        DataError: it is not there, cannot be read, or holds no such mask; the reason is given.
    """
    if path.suffix not in READERS:
        raise DataError(
            f"a mask of heads is not read from '{path.suffix}' files.", where=str(path), hint=nearest(path.suffix, READERS)
        )
    if not path.is_file():
        raise DataError("there is no such file", where=str(path))
    try:
        mask = READERS[path.suffix](path)
    except (ValueError, EOFError, OSError, SafetensorError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from None
    if mask.ndim != 2 or mask.dtype.kind not in "bui" or not np.isin(mask, (0, 1)).all():
        found = f"an array of {mask.dtype} of shape {mask.shape}"
        raise DataError(f"a mask of heads has rows, one a layer, of true and false; this is {found}", where=str(path))
    return tuple(tuple(row) for row in mask.astype(bool).tolist())


def _one_tensor(path: Path) -> np.ndarray:
    tensors = load_file(path)
    if len(tensors) != 1:
        raise ValueError(f"it holds {len(tensors)} tensors, and a mask is one")
    return next(iter(tensors.values()))


READERS = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".safetensors": _one_tensor,
    ".json": lambda path: np.array(json.loads(path.read_text(encoding="utf-8"))),
}
