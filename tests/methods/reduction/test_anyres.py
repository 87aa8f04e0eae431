"""Pictures of several crops: each is reduced by itself, padding has no tokens, and a line break leaves with its line.

LLaVA-NeXT first, then what differs in LLaVA-OneVision, InternVL and Qwen2-VL.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import components
from argus.methods.learned import LearnedReducer
from argus.model.anatomy import anatomy
from tests.methods.anyres import internvl, internvl_inputs, llava_next, next_inputs, onevision, onevision_inputs
from tests.methods.brute_force import logits_with
from tests.methods.families import qwen2, qwen_inputs
from tests.methods.tiny import IMAGE, VIDEO

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


# -- LLaVA-OneVision: shrunk grids, pictures without tiles, videos


@pytest.fixture(scope="module")
def one() -> Any:
    return onevision()


def received(pixels: torch.Tensor) -> torch.Tensor:
    """(G, N) attention that each patch receives, mean over heads and queries, from full eager maps of the last block."""
    with torch.no_grad():
        tower = onevision("eager").model.vision_tower
        return tower(pixels, output_attentions=True).attentions[-1].mean(1).mean(1)


def best(scores: torch.Tensor, keep: float) -> list[int]:
    """Ascending indices of the greatest scores."""
    return sorted(scores.argsort(descending=True)[: int(len(scores) * keep + 0.5)].tolist())


def test_shrunk_grids_are_crops_of_their_own(one: Any) -> None:
    """32 x 32 in 2 x 2 tiles: 8 x 8 patches become 5 x 5 tokens; behind the view's 16 tokens stand 5 lines of 5 and a break."""
    tokens = anatomy(one).visual_tokens(onevision_inputs([1], [3]))
    assert [(c.tile, c.grid) for c in tokens.crops] == [(0, (4, 4)), (1, (5, 5))]
    assert tokens.column[tokens.crop == 0].tolist() == list(range(2, 18))
    assert tokens.column[tokens.crop == 1].tolist() == [18 + 6 * row + column for row in range(5) for column in range(5)]
    assert tokens.breaks.tolist() == [[0, 18 + 6 * row + 5] for row in range(5)]
    assert tokens.line.tolist() == 16 * [-1] + [row for row in range(5) for _ in range(5)]


def test_several_pictures_have_no_tiles(one: Any) -> None:
    """Of each 16 tokens and a break, which leaves with the last of them; the third prompt's only picture is not shrunk."""
    tokens = anatomy(one).visual_tokens(onevision_inputs([0, 2, 1], [3, 3, 3]))
    assert [(c.item, c.image, c.tile, c.grid) for c in tokens.crops[:2]] == [(1, 0, 0, (4, 4)), (1, 1, 0, (4, 4))]
    assert [(c.item, c.tile, c.grid) for c in tokens.crops[2:]] == [(2, 0, (4, 4)), (2, 1, (4, 4)), (2, 2, (4, 4))]
    assert tokens.line[:32].tolist() == 16 * [0] + 16 * [1]


def test_scores_are_shrunk_as_tokens_are(one: Any) -> None:
    """The four tiles' maps side by side, 8 x 8, resampled to 5 x 5; without CLS by the attention that patches receive."""
    inputs = onevision_inputs([1], [3])
    with argus.attach(one, "fastervlm", keep=0.3) as attachment, torch.no_grad():
        one(**inputs)
    rows = received(inputs["pixel_values"][0])
    whole = rows[1:].view(2, 2, 4, 4).permute(0, 2, 1, 3).reshape(1, 1, 8, 8)
    grid = torch.nn.functional.interpolate(whole, [5, 5], mode="bilinear").flatten()
    assert [k.indices.tolist() for k in attachment.kept] == [best(rows[0], 0.3), best(grid, 0.3)]
    with pytest.raises(UnsupportedError, match="no CLS token"):
        argus.attach(one, "fastervlm", without_cls="error")


def film(frames: int = 3) -> dict[str, torch.Tensor]:
    """A video of three frames, 4 x 4 patches and 2 x 2 tokens each, then a picture that is alone in its prompt."""
    ids = torch.tensor([[1, 3, *[VIDEO] * (4 * frames + 1), 5, *[IMAGE] * (16 + 5 * 6), 9, 8, 7]])
    picture = onevision_inputs([1], [3])
    random = torch.Generator().manual_seed(7)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": torch.randn(1, frames, 3, 16, 16, generator=random),
        **{k: picture[k] for k in ("pixel_values", "image_sizes", "batch_num_images")},
    }


def test_each_frame_of_a_video_keeps_its_own(one: Any) -> None:
    """Scores of 2 x 2 patches averaged, as the tokens are; the break behind the video stays with its last token."""
    inputs = film()
    tokens = anatomy(one).visual_tokens(inputs)
    crops = [(0, tile, (2, 2)) for tile in range(3)] + [(1, 0, (4, 4)), (1, 1, (5, 5))]
    assert [(c.image, c.tile, c.grid) for c in tokens.crops] == crops
    assert tokens.breaks[0].tolist() == [0, 14]
    with argus.attach(one, "fastervlm", keep=0.5) as attachment, torch.no_grad():
        one(**inputs)
    rows = received(inputs["pixel_values_videos"][0]).view(3, 2, 2, 2, 2).mean((2, 4)).flatten(1)
    assert [k.indices.tolist() for k in attachment.kept[:3]] == [best(row, 0.5) for row in rows]
    assert [(k.image, k.tile, k.grid) for k in attachment.kept] == crops


@pytest.mark.parametrize("reducer", ["fastervlm", "fastv", "fopru", "gsearch", "random", "yopo"])
def test_videos_pass_untouched(one: Any, reducer: str) -> None:
    inputs = film()
    with torch.no_grad():
        base = one(**inputs).logits
        with argus.attach(one, reducer, keep=1.0):
            assert torch.equal(one(**inputs).logits, base)
            one.generate(**inputs, max_new_tokens=2, **PLAIN)
    assert not {"get_video_features", "pack_image_features"} & set(vars(one.model))


@pytest.mark.parametrize("reducer", ["fastervlm", "fopru", "random"])
def test_videos_are_decoded_as_recomputed(one: Any, reducer: str) -> None:
    """What is kept of a video does not depend on what follows it, so the cache must give what the whole sequence gives."""
    inputs = film()
    with torch.no_grad(), argus.attach(one, reducer, keep=0.3):
        out = one.generate(**inputs, max_new_tokens=2, output_logits=True, return_dict_in_generate=True, **PLAIN)
        ids = out.sequences[:, :-1]
        again = one(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, use_cache=False).logits
    torch.testing.assert_close(out.logits[1], again[:, -1], atol=2e-5, rtol=1e-4)


# -- InternVL: tiles without lines, pixel shuffle


def test_tiles_of_a_picture_stand_together() -> None:
    """Two tiles and a thumbnail, then a picture in one piece: 27 and 9 tokens, words between them."""
    tokens = anatomy(internvl()).visual_tokens(internvl_inputs([2, 1], [3, 3]))
    assert [(c.item, c.image, c.tile) for c in tokens.crops] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (1, 0, 0)]
    assert {c.grid for c in tokens.crops} == {(3, 3)}
    assert tokens.column[tokens.item == 0].tolist() == [*range(2, 29), *range(31, 40)]


@pytest.mark.parametrize("name", ["fastervlm", "fopru"])
def test_scores_are_pooled_over_the_window_that_a_token_is_made_of(name: str) -> None:
    """The CLS row of full eager maps, averaged over 2 x 2 patches."""
    model, eager, inputs = internvl(), internvl("eager"), internvl_inputs([2], [4])
    with torch.no_grad():
        rows = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[-1].mean(1)[:, 0, 1:]
        with argus.attach(model, name, keep=0.5) as attachment:
            model(**inputs)
    pooled = rows.view(-1, 3, 2, 3, 2).mean((2, 4)).flatten(1)
    assert [k.indices.tolist() for k in attachment.kept] == [best(row, 0.5) for row in pooled]


def test_a_token_is_made_of_its_window() -> None:
    """Where a patch's features move, the token of its window moves, and no other."""
    model = internvl().model
    features = torch.zeros(1, 6, 6, 4)
    features[0, 4, 1] = 1.0
    moved = model.pixel_shuffle(features, 0.5)[0].abs().sum(-1).nonzero().tolist()
    assert moved == [[2, 0]]


# -- Qwen2-VL: pictures of any size


def test_merge_groups_average_what_their_patches_receive() -> None:
    """Brute force from queries and keys of the last block; groups stand in raster order, so no order is undone."""
    model, inputs = qwen2(), qwen_inputs([2], [4])  # grids of 8 x 12 and 4 x 8 patches -> 4 x 6 and 2 x 4 tokens
    attention = model.model.visual.blocks[-1].attn
    seen: dict[str, Any] = {}
    hook = attention.register_forward_pre_hook(lambda m, args, kwargs: seen.update(kwargs, x=args[0]), with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
        hook.remove()
        q, k, _ = attention.qkv(seen["x"]).reshape(128, 3, 4, 8).permute(1, 0, 2, 3).unbind(0)  # (P, H, d)
        cos, sin = (e[:, None] for e in seen["position_embeddings"])
        q, k = (x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin for x in (q, k))
        with argus.attach(model, "fastervlm", keep=0.25) as attachment:
            model(**inputs)
    for kept, part in zip(attachment.kept, (slice(0, 96), slice(96, 128)), strict=True):
        maps = (torch.einsum("qhd,khd->hqk", q[part], k[part]) * 8**-0.5).softmax(-1)
        assert kept.indices.tolist() == best(maps.mean((0, 1)).view(-1, 4).mean(-1), 0.25)
