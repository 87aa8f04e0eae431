"""Rows of tokens: packing never mixes samples, and a turn in a row is learned exactly as if it were alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from argus.training.rows import IGNORE, Encoded, assemble, bias, pack, supervised, visible

ids = st.lists(st.integers(3, 30), min_size=1, max_size=5)
encoded = st.builds(
    lambda prefix, turns, independent: Encoded(prefix, turns, [list(t) for t in turns], independent=independent),
    prefix=st.lists(st.integers(3, 30), max_size=6),
    turns=st.lists(ids, min_size=1, max_size=4),
    independent=st.booleans(),
)


@given(st.lists(encoded, min_size=1, max_size=8), st.integers(4, 40))
def test_packing_keeps_every_sample_once_and_within_the_length(samples: list[Encoded], length: int) -> None:
    rows = pack(samples, length)
    assert sorted(i for row in rows for i in row) == list(range(len(samples)))
    for row in rows:
        assert len(row) == 1 or sum(len(samples[i]) for i in row) <= length


@given(st.lists(encoded, min_size=1, max_size=5), st.sampled_from([0, 24, 64]))
def test_mask_is_the_brute_force_one(samples: list[Encoded], packing: int) -> None:
    batch = assemble(samples, pad=0, packing=packing)
    sample, turn = batch["sample"], batch["turn"]
    mask = visible(sample, turn)[:, 0]
    for r in range(len(sample)):
        for q in range(sample.shape[1]):
            for k in range(sample.shape[1]):
                same = sample[r, q] == sample[r, k]
                expected = k <= q and same and (turn[r, k] == 0 or turn[r, k] == turn[r, q])
                assert bool(mask[r, q, k]) == bool(expected)


@given(st.lists(encoded, min_size=1, max_size=5), st.sampled_from([0, 24]))
def test_labels_are_predicted_from_the_token_before(samples: list[Encoded], packing: int) -> None:
    batch = assemble(samples, pad=0, packing=packing)
    rows, columns, labels = supervised(batch["labels"], batch["sample"], batch["turn"])
    assert torch.equal(batch["input_ids"][rows, columns + 1], labels)
    # Every label but the first of each turn (which nothing in its turn precedes) is predicted once.
    expected = sum(len(t) - 1 for s in samples for t in s.turns)
    if not any(s.independent is False and s.prefix for s in samples) and all(s.independent for s in samples):
        assert len(labels) == expected


@pytest.fixture(scope="module")
def lm() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("packing", [0, 64])
def test_turns_in_a_row_equal_turns_alone(lm: LlamaForCausalLM, packing: int) -> None:
    samples = [
        Encoded([1, 5, 6, 7], [[8, 9, 10], [11, 12]], [[IGNORE, 9, 10], [IGNORE, 12]]),
        Encoded([1, 20, 21], [[22, 23], [24, 25, 26], [27, 28]], [[IGNORE, 23], [IGNORE, 25, 26], [IGNORE, 28]]),
    ]
    batch = assemble(samples, pad=0, packing=packing)
    with torch.no_grad():
        logits = lm(
            input_ids=batch["input_ids"],
            attention_mask=bias(visible(batch["sample"], batch["turn"]), torch.float32),
            position_ids=batch["position_ids"],
        ).logits
    rows, columns, labels = supervised(batch["labels"], batch["sample"], batch["turn"])
    in_rows = dict(zip(labels.tolist(), logits[rows, columns], strict=True))
    for sample in samples:
        for turn, marks in zip(sample.turns, sample.labels, strict=True):
            with torch.no_grad():
                alone = lm(input_ids=torch.tensor([sample.prefix + turn])).logits[0]
            for at, label in enumerate(marks):
                if label != IGNORE:
                    torch.testing.assert_close(in_rows[label], alone[len(sample.prefix) + at - 1], rtol=1e-4, atol=1e-5)
