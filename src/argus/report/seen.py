"""What is left of a picture for the language model, once techniques have dropped visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from argus.evaluation.inferencers.base import Question

if TYPE_CHECKING:
    from argus.methods.attached import Attached


@dataclass(frozen=True, slots=True)
class Seen:
    """What reaches the last decoder layer of the last picture of a prompt, the one that is asked about.

    Args:
        indices: raster indices of the visual tokens of its first crop that are left.
        grid: (rows, columns) of that crop.
        kept: visual tokens left, over all crops of all pictures.
        total: visual tokens there were.
    """

    indices: list[int]
    grid: tuple[int, int]
    kept: int
    total: int


def seen(model: Any, processor: Any, question: Question, attachments: Sequence[Attached]) -> Seen | None:
    """Prefill one question and read what the attached techniques left; None where nothing is attached, shown or dropped."""
    import torch

    from argus.evaluation.alone import Alone
    from argus.evaluation.held import HeldModel

    if not attachments or not question.images:
        return None
    held = HeldModel(model, processor)
    (inputs,) = Alone(held).inputs([question], held.prompter.prompts([question], options=False))
    with torch.inference_mode():
        model(**inputs, logits_to_keep=1)
    last: dict[tuple[int, int], Any] = {}  # (image, tile) -> what the deepest drop left of it
    for entry in (kept for attachment in attachments for kept in attachment.kept):
        place = (entry.image, entry.tile)
        # At one layer techniques act one after the other, so the later record is the smaller set.
        if place not in last or entry.layer >= last[place].layer:
            last[place] = entry
    if not last:
        return None  # all tokens stayed: nothing was asked to drop any
    image = max(image for image, _ in last)
    first = last[min(place for place in last if place[0] == image)]
    return Seen(
        sorted(first.indices.tolist()),
        first.grid,
        sum(len(entry.indices) for entry in last.values()),
        sum(entry.grid[0] * entry.grid[1] for entry in last.values()),
    )
