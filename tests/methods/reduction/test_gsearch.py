"""Each decoder layer sees its own share of the visual tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import argus
from argus.core.errors import RecipeError, UnsupportedError
from argus.methods.reduction.diagnostics import attention_curves, kendall_tau
from argus.methods.reduction.schedules import step
from argus.model.anatomy import anatomy
from tests.methods.brute_force import columns_gone, logits_with
from tests.methods.families import FAMILIES, IMAGE, llava, llava_inputs

FALLING = (1.0, 0.6, 0.25)


def kept(model: Any, inputs: Any, name: str, **options: Any) -> list[tuple[int, list[int]]]:
    with argus.attach(model, name, **options) as attachment, torch.no_grad():
        model(**inputs)
    return [(k.layer, k.indices.tolist()) for k in attachment.kept]


def test_all_ones_is_the_base_model(family: str) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "gsearch", schedule=(1.0, 1.0, 1.0)):
            assert torch.equal(model(**inputs).logits, base)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("keep", [0.5, 0.125, 0.0])
def test_a_step_is_fastv(family: str, layer: int, keep: float) -> None:
    """Ranked by the last row, a step in front of layer K keeps what FastV keeps, and computes what it computes."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [6, 4])
    ours = {"schedule": step(3, layer, keep), "first": layer, "rows": "last"}
    assert kept(model, inputs, "gsearch", **ours) == kept(model, inputs, "fastv", layer=layer, keep=keep)
    with torch.no_grad():
        with argus.attach(model, "fastv", layer=layer, keep=keep):
            expected = model(**inputs).logits
        with argus.attach(model, "gsearch", **ours):
            assert torch.equal(model(**inputs).logits, expected)


def test_survivors_are_nested_counted_and_in_place(family: str) -> None:
    """Each prompt keeps round(r N) of its own N; logits equal the sequence cut by hand with its positions kept."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [6])
    with torch.no_grad(), argus.attach(model, "gsearch", schedule=FALLING, first=1) as attachment:
        logits = model(**inputs).logits[0]
        gone = columns_gone(attachment, inputs, model)
    one, two = attachment.counts
    assert (one.kept, two.kept) == (int(one.total * 0.6 + 0.5), int(one.total * 0.25 + 0.5))
    crops = len(attachment.kept) // 2
    for first, second in zip(attachment.kept[:crops], attachment.kept[crops:], strict=True):
        assert set(second.indices.tolist()) <= set(first.indices.tolist())
    expected, columns = logits_with(model, inputs, gone)
    torch.testing.assert_close(logits[columns], expected, atol=2e-5, rtol=1e-4)


def test_prompts_of_a_batch_have_their_own_budget() -> None:
    model, inputs = llava(), llava_inputs([1, 2], [6, 4])
    with torch.no_grad(), argus.attach(model, "gsearch", schedule=FALLING, first=1) as attachment:
        model(**inputs)
    assert [(c.layer, c.item, c.kept) for c in attachment.counts] == [(1, 0, 22), (1, 1, 43), (2, 0, 9), (2, 1, 18)]


def test_ranked_by_the_text_of_the_layer_before(family: str) -> None:
    """Against full maps of the eager model: mean over heads and over the rows of text behind the picture."""
    model, eager = FAMILIES[family].model(), FAMILIES[family].model("eager")
    inputs = FAMILIES[family].inputs([1], [6])
    tokens = anatomy(model).visual_tokens(inputs)
    with torch.no_grad():
        maps = eager(**inputs, output_attentions=True).attentions[1][0].mean(0)  # (S, S)
    visual = anatomy(model).visual_mask(inputs["input_ids"])[0]
    text = ~visual & (visual.cumsum(0) > 0)
    best = maps[text].mean(0)[tokens.column].argsort(descending=True)[: int(len(tokens) * 0.25 + 0.5)]
    cells = [sorted(tokens.cell[best[tokens.crop[best] == crop]].tolist()) for crop in range(len(tokens.crops))]
    assert kept(model, inputs, "gsearch", schedule=(1.0, 1.0, 0.25)) == [(2, chosen) for chosen in cells]


def test_without_a_schedule_a_sigmoid_of_the_budget() -> None:
    """Three layers, two of which see everything: the third has the whole budget."""
    model, inputs = llava(), llava_inputs([1], [6])
    with torch.no_grad(), argus.attach(model, "gsearch", keep=0.25) as attachment:
        model(**inputs)
    assert [(c.layer, c.kept) for c in attachment.counts] == [(2, 9)]


def test_a_lot_as_control() -> None:
    """As many tokens as the schedule says, but not those that text looks at; the same for the same seed."""
    model, inputs = llava(), llava_inputs([1], [6])
    lots = [kept(model, inputs, "gsearch", keep=0.25, rows="random", seed=seed) for seed in (0, 0, 1)]
    assert lots[0] == lots[1] != lots[2]
    assert len(lots[0][0][1]) == 9
    assert lots[0] != kept(model, inputs, "gsearch", keep=0.25)


def test_generation_equals_recomputing_with_what_was_kept(family: str) -> None:
    """Each layer's cache holds its own survivors, and they stay gone while decoding."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [6])
    plain = {"eos_token_id": None, "suppress_tokens": [IMAGE], "do_sample": False}
    with argus.attach(model, "gsearch", schedule=FALLING, first=1) as attachment, torch.no_grad():
        out = model.generate(
            **inputs, max_new_tokens=4, **plain, output_logits=True, return_dict_in_generate=True, pad_token_id=0
        )
        gone = columns_gone(attachment, inputs, model)
    lengths = [layer.keys.shape[2] for layer in out.past_key_values.layers]
    assert lengths[0] > lengths[1] > lengths[2]
    new = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    expected, _ = logits_with(model, inputs, gone, more=new[:-1])
    torch.testing.assert_close(torch.stack([row[0] for row in out.logits]), expected[-4:], atol=5e-5, rtol=1e-4)


def test_behind_a_reducer_of_the_encoder() -> None:
    """Shares are of what FasterVLM left: 18 of 36, then 11 and 5."""
    model, inputs = llava(), llava_inputs([1], [6])
    with argus.attach(model, "fastervlm", keep=0.5), argus.attach(model, "gsearch", schedule=FALLING, first=1) as attachment:
        model(**inputs)
    assert [(c.before, c.kept) for c in attachment.counts] == [(18, 11), (11, 5)]


def test_layers_compared_by_their_ranking(plain: str) -> None:
    """The curves of text attention give an agreement table of layers: ones on the diagonal, symmetric."""
    curves = attention_curves(FAMILIES[plain].model(), FAMILIES[plain].inputs([1], [6]))
    table = kendall_tau(curves.text)
    assert table.shape == (3, 3)
    torch.testing.assert_close(table.diagonal(), torch.ones(3, dtype=torch.float64))
    assert torch.equal(table, table.T)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"schedule": (1.0, 0.5)}, "2 shares, the language model 3 layers"),
        ({"schedule": (1.0, 0.5, 0.5)}, "layers before 2 see all tokens.*first: 1"),
        ({"schedule": (0.5, 0.5, 0.5), "first": 1}, "in front of layer 0"),
        ({"first": 3}, "no layer comes behind layer 3"),
    ],
)
def test_what_the_model_cannot_do_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        argus.attach(llava(), "gsearch", **options)


def test_a_rising_schedule_is_refused_before_any_model() -> None:
    with pytest.raises(RecipeError, match="do not come back"):
        argus.attach(llava(), "gsearch", schedule=(1.0, 0.5, 0.7))
