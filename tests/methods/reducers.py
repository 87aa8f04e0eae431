"""The reducers that every test of attaching goes through, and how they are asked."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from argus.core.registry import components
from argus.methods.learned import LearnedReducer
from tests.methods.tiny import IMAGE, PAD

# YOPO keeps all tokens and cuts what is computed for them, and trained choices need their weights: their tests are their own.
REDUCERS = [c.name for c in components("reducer") if c.name != "yopo" and not issubclass(c.load(), LearnedReducer)]
IN_LLM = ("fastv", "gsearch")  # ranked by the language model's attention, with one budget per prompt
PLAIN = {"eos_token_id": None, "suppress_tokens": [IMAGE]}  # no early end, no placeholder out of a random model


def renumbered(reducer: str) -> set[int]:
    """Layers in front of which a reducer renumbers survivors by default."""
    return {0} if reducer in ("fastervlm", "fopru", "random") else set()


def greedy(model: Any, inputs: dict[str, Tensor], steps: int) -> tuple[list[int], list[Tensor]]:
    """Greedy tokens of one item and the logits that chose them, through the KV cache."""
    out = model.generate(
        **inputs,
        max_new_tokens=steps,
        do_sample=False,
        **PLAIN,
        pad_token_id=PAD,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0, inputs["input_ids"].shape[1] :].tolist(), [row[0] for row in out.logits]
