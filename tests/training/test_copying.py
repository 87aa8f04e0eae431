"""Copying: what a language model loses on tokens that it has just read in this order."""

from typing import Any

import pytest
import torch

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import Sample
from argus.model.load import load


@pytest.mark.parametrize("name", ["argus/tiny-lm", "argus/tiny-vlm"])
def test_the_loss_is_that_of_the_second_half(name: str) -> None:
    model, processor = load(name)
    objective: Any = build("objective", "copying", {"length": 6})
    objective.bind(model, processor)
    items = [Sample(str(i), []) for i in range(3)]
    batch = objective.collate(items)
    ids = batch["input_ids"][:, :12]  # rows are padded to a multiple
    assert torch.equal(ids[:, :6], ids[:, 6:])
    assert all(len(set(row.tolist())) == 6 for row in ids)
    with torch.no_grad():
        logits = model(input_ids=ids).logits.float().log_softmax(-1)
        expected = -logits[:, 5:11].gather(-1, ids[:, 6:, None]).mean()
        torch.testing.assert_close(objective.loss(model, batch)[0], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(objective.collate(items)["input_ids"], batch["input_ids"]), "an item is the same whenever it is drawn"


def test_more_tokens_than_the_vocabulary_has_are_refused() -> None:
    class Short:
        all_special_ids = (0,)

        def get_vocab(self) -> dict[str, int]:
            return {"<s>": 0, "a": 1, "b": 2}

    with pytest.raises(UnsupportedError, match="copying 16 different tokens needs as many, but the tokenizer has 2"):
        build("objective", "copying").bind(torch.nn.Linear(1, 1), Short())
