"""LLaVA-NeXT: every crop is reduced by itself, padding has no tokens, and a line break leaves with its line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import argus
from argus.core.registry import components
from argus.methods.learned import LearnedReducer
from argus.model.anatomy import anatomy
from tests.methods.anyres import llava_next, next_inputs
from tests.methods.brute_force import logits_with
from tests.methods.families import IMAGE

FLAT, TALL = (24, 48), (30, 48)
PLAIN = {"eos_token_id": None, "suppress_tokens": [IMAGE], "do_sample": False}


@pytest.fixture(scope="module")
def model() -> Any:
    return llava_next()


def test_where_the_tokens_are(model: Any) -> None:
    """24 x 48: the view's 36 tokens, then lines of 6 tokens of the left tile, 6 of the right one, and a break."""
    inputs = next_inputs([[FLAT]], [3])
    tokens = anatomy(model).visual_tokens(inputs)
    assert [(c.tile, c.grid) for c in tokens.crops] == [(0, (6, 6)), (1, (6, 6)), (2, (6, 6))]
    place = {(int(c), int(cell)): int(column) for c, cell, column in zip(tokens.crop, tokens.cell, tokens.column, strict=True)}
    for row in range(6):
        for column in range(6):
            assert place[0, 6 * row + column] == 2 + 6 * row + column
            assert place[1, 6 * row + column] == 2 + 36 + 13 * row + column
            assert place[2, 6 * row + column] == 2 + 36 + 13 * row + 6 + column
    assert tokens.breaks.tolist() == [[0, 2 + 36 + 13 * row + 12] for row in range(6)]
    assert tokens.line[:36].eq(-1).all()
    assert tokens.line[36:].tolist() == 2 * [row for row in range(6) for _ in range(6)]


def test_padding_has_no_tokens(model: Any) -> None:
    """30 x 48 in 2 x 2 tiles: 2 of 12 lines are cut away at the top, 2 at the bottom."""
    tokens = anatomy(model).visual_tokens(next_inputs([[TALL]], [3]))
    assert len(tokens.breaks) == 8
    assert [int((tokens.crop == c).sum()) for c in range(5)] == [36, 24, 24, 24, 24]
    assert tokens.cell[tokens.crop == 1].tolist() == list(range(12, 36))
    assert tokens.cell[tokens.crop == 4].tolist() == list(range(24))


@pytest.mark.parametrize("reducer", [c.name for c in components("reducer") if not issubclass(c.load(), LearnedReducer)])
def test_keep_everything_is_bit_identical(model: Any, reducer: str) -> None:
    inputs = next_inputs([[FLAT], [TALL, FLAT]], [4, 7])
    with torch.no_grad():
        base = model(**inputs).logits
    sequence = model.generate(**inputs, max_new_tokens=3, **PLAIN)
    with argus.attach(model, reducer, keep=1.0), torch.no_grad():
        assert torch.equal(model(**inputs).logits, base)
        assert torch.equal(model.generate(**inputs, max_new_tokens=3, **PLAIN), sequence)
    assert "pack_image_features" not in vars(model.model)  # nobody listens any more


@pytest.mark.parametrize("name", ["fastervlm", "fopru"])
def test_every_crop_keeps_its_own_best(model: Any, name: str) -> None:
    """9 of 36 tokens of a whole crop, 6 of the 24 that padding leaves; by the CLS row of full eager maps."""
    eager, inputs = llava_next("eager"), next_inputs([[FLAT], [TALL]], [4, 6])
    real = torch.cat([inputs["pixel_values"][0, :3], inputs["pixel_values"][1]])
    with torch.no_grad():
        rows = eager.model.vision_tower(real, output_attentions=True).attentions[-2].mean(1)[:, 0, 1:]
        with argus.attach(model, name, keep=0.25) as attachment:
            model(**inputs)
    tokens = anatomy(model).visual_tokens(inputs)
    for number, (kept, row) in enumerate(zip(attachment.kept, rows, strict=True)):
        cells = tokens.cell[tokens.crop == number]
        best = cells[row[cells].argsort(descending=True)[: len(cells) // 4]]
        assert kept.indices.tolist() == sorted(best.tolist())
    assert [c.per_crop for c in attachment.counts] == [(9, 9, 9), (9, 6, 6, 6, 6)]
    assert [c.total for c in attachment.counts] == [108, 132]


def test_rows_in_each_crops_own_grid(model: Any) -> None:
    """Half of 6 rows of a whole crop, half of the 4 that padding leaves."""
    inputs = next_inputs([[TALL]], [4])
    with argus.attach(model, "fopru", keep=0.5, strategy="row") as attachment, torch.no_grad():
        model(**inputs)
    for kept, rows in zip(attachment.kept, (3, 2, 2, 2, 2), strict=True):
        whole = kept.mask().all(-1)
        assert torch.equal(kept.mask(), whole[:, None].expand(6, 6))
        assert int(whole.sum()) == rows


@pytest.mark.parametrize(("name", "options"), [("fastervlm", {}), ("fopru", {"strategy": "row"}), ("random", {})])
def test_equal_to_cutting_the_sequence(model: Any, name: str, options: dict[str, Any]) -> None:
    """Tokens and the breaks of lines without tokens are gone; prefill and decoding equal recomputing without a cache."""
    inputs = next_inputs([[TALL]], [4])
    tokens = anatomy(model).visual_tokens(inputs)
    with argus.attach(model, name, keep=0.1, **options) as attachment, torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=3, output_logits=True, return_dict_in_generate=True, **PLAIN)
    gone, lines = set(), set()
    for number, kept in enumerate(attachment.kept):
        own = tokens.crop == number
        stays = torch.isin(tokens.cell[own], kept.indices)
        gone |= set(tokens.column[own][~stays].tolist())
        lines |= set(tokens.line[own][stays].tolist())
    ended = [line for line in range(len(tokens.breaks)) if line not in lines]
    assert ended  # at a tenth, some line has lost all of its tokens
    gone |= {int(tokens.breaks[line, 1]) for line in ended}
    length = inputs["input_ids"].shape[1]
    more = out.sequences[0, length:].tolist()
    expected, columns = logits_with(model, inputs, {0: gone}, more[:-1], consecutive={0})
    for step, logits in enumerate(out.logits):
        torch.testing.assert_close(logits[0], expected[columns.index(length - 1 + step)], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["fastervlm", "fopru", "fastv"])
def test_batch_with_padding_equals_one_by_one(model: Any, name: str) -> None:
    pictures, questions = [[FLAT], [TALL, FLAT]], [4, 7]
    batch = next_inputs(pictures, questions)
    with argus.attach(model, name, keep=0.3), torch.no_grad():
        together = model(**batch).logits[:, -1]
        for item, count in enumerate((1, 2)):
            real, first = batch["attention_mask"][item].bool(), item
            alone = model(
                input_ids=batch["input_ids"][item : item + 1, real],
                pixel_values=batch["pixel_values"][first : first + count],
                image_sizes=batch["image_sizes"][first : first + count],
            ).logits[0, -1]
            torch.testing.assert_close(together[item], alone, atol=2e-5, rtol=1e-4)


def test_in_llm_reducers_stack_behind(model: Any) -> None:
    """FastV counts the tokens of all crops together; breaks are no tokens."""
    inputs = next_inputs([[TALL]], [5])
    with argus.attach(model, "fopru", keep=0.5) as outer, argus.attach(model, "fastv", keep=0.5) as inner, torch.no_grad():
        model(**inputs)
    assert (outer.counts[0].kept, inner.counts[0].before, inner.counts[0].kept) == (66, 66, 33)


def test_the_packing_is_given_back_in_any_order(model: Any) -> None:
    """Two listeners, the first one leaves first; the model's own packing returns when nobody listens."""
    from argus.methods.encoded import Encoder

    inputs = next_inputs([[FLAT]], [3])
    with torch.no_grad():
        base = model(**inputs).logits
        first, second = Encoder(anatomy(model)), Encoder(anatomy(model))
        first.remove()
        model(**inputs)
        second.remove()
        assert torch.equal(model(**inputs).logits, base)
    assert len(first.encodings) == 0
    assert [p.size for p in second.encodings[0].pieces] == [114]
    assert "pack_image_features" not in vars(model.model)
