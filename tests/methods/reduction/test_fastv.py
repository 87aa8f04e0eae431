"""FastV ranks by the last prompt row of layer K, and drops behind it."""

from __future__ import annotations

import torch

import argus
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone
from tests.methods.families import FAMILIES


def test_set_equals_full_attention_maps(family: str) -> None:
    """K = 2: the map of the second layer (index 1), last row, mean over heads; one budget per prompt."""
    model, eager = FAMILIES[family].model(), FAMILIES[family].model("eager")
    inputs = FAMILIES[family].inputs([1, 2], [6, 4])
    tokens = anatomy(model).visual_tokens(inputs)
    with torch.no_grad():
        rows = eager(**inputs, output_attentions=True).attentions[1].mean(1)[:, -1]  # (B, S)
        with argus.attach(model, "fastv") as attachment:
            model(**inputs)
    for item in range(2):
        columns = tokens.column[tokens.item == item]
        best = columns[rows[item, columns].argsort(descending=True)[: int(len(columns) * 0.5 + 0.5)]]
        kept = {
            int(tokens.column[(tokens.crop == number) & (tokens.cell == cell)])
            for number, entry in enumerate(attachment.kept)
            if entry.item == item
            for cell in entry.indices.tolist()
        }
        assert kept == set(best.tolist())
    assert attachment.depends_on_question


def test_cache_lengths_by_layer(family: str) -> None:
    """Layers up to K hold everything, later ones the survivors."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [6])
    length, visual = inputs["input_ids"].shape[1], len(anatomy(model).visual_tokens(inputs))
    with argus.attach(model, "fastv") as attachment, torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        gone = columns_gone(attachment, inputs, model)[2]  # with the breaks of lines that lost all tokens
    assert [layer.keys.shape[2] for layer in cache.layers] == [length, length, length - len(gone)]
    assert attachment.counts[0].kept == int(visual * 0.5 + 0.5)
    assert [cache.get_seq_length(i) for i in range(3)] == [length] * 3


def test_the_question_changes_the_choice() -> None:
    model = FAMILIES["llava"].model()
    inputs = FAMILIES["llava"].inputs([1], [6])
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, -4:] = torch.tensor([11, 12, 13, 14])
    kept = []
    with argus.attach(model, "fastv", keep=0.3) as attachment, torch.no_grad():
        for prompt in (inputs, other):
            model(**prompt)
            kept.append(attachment.kept[0].indices.tolist())
    assert kept[0] != kept[1]
