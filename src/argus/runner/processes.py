"""Several processes of one run, started by torchrun: all of them train, the first one writes, evaluates and reports.

    torchrun --nproc-per-node 2 .venv/bin/argus run recipes/reference/tiny-vlm.yaml

A stage's batch is split between them (`argus.training.stage`), so that its losses are those of one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def several() -> bool:
    """Whether this process is one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def first() -> bool:
    """Whether this process is the only one, or the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined() -> Iterator[None]:
    """The processes find each other, for the time inside; nothing happens where there is one."""
    if not several():
        yield
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def agreed(folder: Callable[[], Path]) -> Path:
    """A folder that the first process finds or makes, told to all; inside `joined`.

    Raises:
        Exception: what stopped the first process stops all.
    """
    if not several():
        return folder()
    from torch import distributed

    told: list[Path | Exception | None] = [None]
    if first():
        try:
            told = [folder()]
        except Exception as error:  # the others wait for an answer
            told = [error]
    distributed.broadcast_object_list(told)
    if isinstance(told[0], Exception):
        raise told[0]
    assert told[0] is not None
    return told[0]
