"""Copying: what a language model loses on tokens that it has just read in this order."""

from typing import Any

import pytest
import torch

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import Sample
from argus.model.load import load
from argus.training.rows import IGNORE


@pytest.mark.parametrize("name", ["argus/tiny-lm", "argus/tiny-vlm"])
def test_the_loss_is_that_of_what_is_said_again(name: str) -> None:
    model, processor = load(name)
    objective: Any = build("objective", "copying", {"length": 6})
    objective.bind(model, processor)
    items = [Sample(str(i), []) for i in range(8)]
    losses, shapes = [], set()
    for item in items:
        encoded = objective.encode(item)
        ids, labels = encoded.turns[0], encoded.labels[0]
        again = [i for i in labels if i != IGNORE]
        n = len(again) + 1
        assert ids[-n:] == ids[:n]
        assert again == ids[1:n]
        assert len(set(ids)) == len(ids) - n, "nothing else is said twice"
        shapes.add((n, len(ids) - 2 * n))
        with torch.no_grad():
            said = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        losses += [-said[len(ids) - n + k, token] for k, token in enumerate(again)]
    assert len(shapes) > 4, "how far back differs from row to row"
    batch = objective.collate(items)
    with torch.no_grad():
        torch.testing.assert_close(objective.loss(model, batch)[0], torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)
    assert torch.equal(objective.collate(items)["input_ids"], batch["input_ids"]), "an item is the same whenever it is drawn"


def test_more_tokens_than_the_vocabulary_has_are_refused() -> None:
    class Short:
        all_special_ids = (0,)

        def get_vocab(self) -> dict[str, int]:
            return {"<s>": 0, "a": 1, "b": 2}

    with pytest.raises(UnsupportedError, match="copying 16 tokens needs 32 different ones, but the tokenizer has 2"):
        build("objective", "copying").bind(torch.nn.Linear(1, 1), Short())
