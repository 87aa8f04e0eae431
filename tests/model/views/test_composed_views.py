"""A composed model with each view: several pictures of any size, generation, batches, files, separators, techniques."""

from pathlib import Path
from typing import Any

import pytest
import torch

import argus
from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.model.anatomy import anatomy
from argus.model.compose import compose
from argus.model.load import load
from argus.model.token_map import SEPARATOR, TASK, TEXT, VISUAL, TokenMap
from argus.model.viewing import viewing
from argus.model.views.base import TASK as FIRST_TASK
from argus.model.views.base import Places
from tests.model.several import ANSWER, ENCODER, PICTURES, assert_each_alone, encode, mixed
from tests.model.test_composed import picture
from tests.model.tiny import BODY, tokenizer

VIEWS: dict[str, dict[str, Any]] = {
    "square": {},
    "internvl": {"max_tiles": 6},
    "anyres": {},
    "nvlm": {"thumbnail_tag": "<tile_0>"},
    "4khd": {"hd_num": 6},
    "ferret_ui": {},
    "tokenpacker_hd": {"max_tiles": 6},
    "ovis": {"max_tiles": 6},
    "task_tokens": {"view": "anyres", "tokens": 2, "rows": 16},
}


def made(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A random model composed of parts; weights large enough for pictures to matter."""
    monkeypatch.setattr("argus.model.compose._tokenizer", lambda spec: tokenizer())
    torch.manual_seed(0)
    language = {"causal_lm": {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True, **BODY}}
    model, processor = compose(
        {"language_model": {**language, "tokenizer": "words"}, "encoder": ENCODER, "connector": "mlp", "view": {name: options}}
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.eval(), processor


@pytest.fixture(params=VIEWS)
def both(request: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    return made(request.param, VIEWS[request.param], monkeypatch)


def test_counts_are_what_the_model_fills(both: tuple[Any, Any]) -> None:
    model, processor = both
    for one in PICTURES:
        inputs = encode(processor, ["red"], [[one]])
        count = processor.image_token_count(*one.size)
        assert int(inputs["mm_token_type_ids"].sum()) == count
        with torch.no_grad():
            features = model.get_image_features(inputs["pixel_values"], image_sizes=inputs.get("image_sizes"))
        assert sum(len(f) for f in features) == count


def test_a_batch_of_different_tilings_equals_one_by_one(both: tuple[Any, Any]) -> None:
    assert_each_alone(*both, ["What colour is the star?", "How many?"], [PICTURES[:1], PICTURES[1:]])


def test_every_picture_matters(both: tuple[Any, Any]) -> None:
    model, processor = both
    with torch.no_grad():
        base = model(**encode(processor, ["Same?"], [PICTURES])).logits[0, -1]
        for index in range(3):
            changed = [picture(9, p.size) if i == index else p for i, p in enumerate(PICTURES)]
            assert not torch.allclose(model(**encode(processor, ["Same?"], [changed])).logits[0, -1], base, atol=1e-4)


def test_files_bring_the_view_back(both: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = both
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, processor_again = load(str(tmp_path))
    inputs, inputs_again = mixed(processor), mixed(processor_again)
    assert set(inputs) == set(inputs_again)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs_again).logits)


@pytest.mark.parametrize("more", [{}, {"num_beams": 3}, {"prefill_chunk_size": 7}, {"prefill_chunk_size": 7, "num_beams": 2}])
def test_the_map_is_the_processors_however_it_was_read(both: tuple[Any, Any], more: dict[str, Any]) -> None:
    """Beams, and chunks that cut tiles, tags and rows of a batch anywhere."""
    model, processor = both
    inputs = mixed(processor)
    size = inputs["input_ids"].shape[1]
    plain = model.generate(**inputs, **ANSWER)
    answer = model.generate(**inputs, **ANSWER, **more)
    if "num_beams" not in more:
        assert torch.equal(answer, plain)
    beams = more.get("num_beams", 1)
    found, expected = model.model.token_map.slice(0, size), processor.token_map(inputs)
    expected = expected.select(torch.arange(3).repeat_interleave(beams))
    for name in TokenMap.__slots__:
        if name != "kind":
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert torch.equal(found.visual, expected.visual)
    assert torch.equal(found.placeholders, inputs["input_ids"].repeat_interleave(beams, 0) == processor.image_token_id)


def test_the_map_follows_the_layout(both: tuple[Any, Any]) -> None:
    """Cell by cell, beside a loop over the spans."""
    _, processor = both
    inputs = encode(processor, ["red"], [PICTURES])
    known, place = processor.token_map(inputs), 0
    positions = (inputs["input_ids"][0] == processor.image_token_id).nonzero().flatten().tolist()
    for image, one in enumerate(PICTURES):
        arrangement = processor.arrange(*one.size)
        rows, columns = arrangement.grid
        for span in arrangement.layout:
            for source in span.source.tolist() if isinstance(span, Places) else []:
                at = positions[place]
                place += 1
                found = [int(getattr(known, f)[0, at]) for f in ("kind", "image", "tile", "row", "column")]
                if source <= FIRST_TASK:
                    assert found == [TASK, image, -1, -1, FIRST_TASK - source]
                elif source < 0:
                    assert found == [SEPARATOR, image, -1, -1, -1]
                else:
                    tile, cell = divmod(source, rows * columns)
                    assert found == [VISUAL, image, tile, cell // columns, cell % columns]
    assert place == len(positions)


def test_tags_are_text_that_belongs_to_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("nvlm", VIEWS["nvlm"], monkeypatch)
    inputs = encode(processor, ["red"], [PICTURES[:1]])
    with torch.no_grad():
        model(**inputs)
    known = model.model.token_map
    ids = inputs["input_ids"][0]
    tiles = processor.arrange(40, 20).tiles
    assert tiles == 3
    for tile in range(tiles):
        where = known.tags[0] & (known.tile[0] == tile)
        assert processor.tokenizer.decode(ids[where]) == ("<tile_0>" if tile == 2 else f"<tile_{tile + 1}>")
        assert (known.kind[0][where] == TEXT).all()
    assert "<Image><tile_1>" in processor.tokenizer.decode(ids)
    assert int(known.tags.sum()) == tiles * model.config.tag_length
    # Placeholders are those of the bare tiles: tags are no visual tokens.
    assert processor.image_token_count(40, 20) == tiles * 4


def test_tags_of_unequal_length_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match=r"equally many tokens.*<tile_global_thumbnail>"):
        made("nvlm", {}, monkeypatch)
    assert made("nvlm", {"tags": "2d_box"}, monkeypatch)[0].config.tag_length > 0


@pytest.mark.parametrize(("name", "vectors"), [("anyres", {"image_newline"}), ("4khd", {"image_newline", "image_divider"})])
def test_separators_are_learned(name: str, vectors: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made(name, VIEWS[name], monkeypatch)
    inputs = encode(processor, ["What colour?"], [PICTURES[:1]])
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    found = dict(model.model.image_assembly.named_parameters())
    assert set(found) == vectors
    assert all(p.grad.abs().sum() > 0 for p in found.values())
    bare, _ = made(name, {**VIEWS[name], "newline": False, **({"divider": False} if name == "4khd" else {})}, monkeypatch)
    assert not list(bare.model.image_assembly.parameters())


def test_separators_have_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a slow assembly of one picture."""
    model, processor = made("4khd", VIEWS["4khd"], monkeypatch)
    inputs = encode(processor, ["red"], [PICTURES])
    with torch.no_grad():
        stack = model.model.multi_modal_projector(model.model.encode_images(inputs["pixel_values"]))  # (T, M, D)
        found = model.get_image_features(inputs["pixel_values"], image_sizes=inputs["image_sizes"])
    start, extra = 0, model.model.image_assembly
    for one, rows in zip(PICTURES, found, strict=True):
        columns, high = processor.image_processor.view_component.cut(*one.size, 16).grid
        tiles = stack[start : start + 1 + columns * high].view(-1, 2, 2, stack.shape[-1])
        start += len(tiles)
        slow = []
        for r in range(2):
            slow += [*tiles[0, r], extra.image_newline]
        slow.append(extra.image_divider)
        for tile_row in range(high):
            for r in range(2):
                slow += [t for c in range(columns) for t in tiles[1 + tile_row * columns + c, r]] + [extra.image_newline]
        assert torch.equal(rows, torch.stack(slow))


def test_features_computed_before_take_the_place_of_pixels(both: tuple[Any, Any]) -> None:
    model, processor = both
    inputs = mixed(processor)
    rest = {k: v for k, v in inputs.items() if k != "pixel_values"}
    sizes = inputs.get("image_sizes")
    with torch.no_grad():
        features = model.get_image_features(inputs["pixel_values"], image_sizes=sizes)
        assert torch.equal(model(**rest, image_features=features).logits, model(**inputs).logits)
    for more in ({}, {"num_beams": 2}):
        expected = model.generate(**inputs, **ANSWER, **more)
        assert torch.equal(model.generate(**rest, image_features=features, **ANSWER, **more), expected)


def test_pictures_in_later_turns(both: tuple[Any, Any]) -> None:
    """A second picture behind a KV cache: the same logits, and a map that goes on counting."""
    model, processor = both
    parts = [
        processor(images=[p], text=f"<image>{t}", return_tensors="pt") for p, t in zip(PICTURES, ["red", "blue"], strict=False)
    ]
    whole = processor(images=PICTURES[:2], text="<image>red<image>blue", return_tensors="pt")
    with torch.no_grad():
        expected = model(**whole).logits[:, -1]
        known = model.model.token_map
        cache = model(**parts[0], use_cache=True).past_key_values
        later = {k: v for k, v in parts[1].items() if k != "attention_mask"}
        found = model(**later, past_key_values=cache, use_cache=True).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    for name in TokenMap.__slots__:
        assert torch.equal(getattr(model.model.token_map, name), getattr(known, name)), name


@torch.no_grad()
def test_a_budget_at_run_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of tiles is a setting of processor and config, not of weights: a model that was made for 2 tiles is asked with
    9, and computes what one that was made for 9 computes; (h w + 1) 2 * 2 + (h + 1) 2 + 1 positions, h x w tiles."""
    model, processor = made("4khd", {"hd_num": 2}, monkeypatch)
    nine, nine_processor = made("4khd", {"hd_num": 9}, monkeypatch)
    few = model(**encode(processor, ["red"], [PICTURES[:1]])).logits
    for budget, (high, wide) in {1: (1, 1), 2: (1, 2), 9: (2, 4), 25: (3, 6)}.items():  # of 40 x 20 pixels
        with viewing(model, processor, {"hd_num": budget}):
            inputs = encode(processor, ["red"], [PICTURES[:1]])
            assert int(inputs["mm_token_type_ids"].sum()) == (high * wide + 1) * 4 + (high + 1) * 2 + 1
            logits, answer = model(**inputs).logits, model.generate(**inputs, **ANSWER)
        assert model.config.view == processor.image_processor.view == {"4khd": {"hd_num": 2}}
        if budget == 9:
            same = encode(nine_processor, ["red"], [PICTURES[:1]])
            assert torch.equal(nine(**same).logits, logits)
            assert torch.equal(nine.generate(**same, **ANSWER), answer)
    assert torch.equal(model(**encode(processor, ["red"], [PICTURES[:1]])).logits, few)


def test_an_evaluation_with_another_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("4khd", {"hd_num": 1}, monkeypatch)
    asked = {"scenario": {"world/objects": {"size": 48}}, "samples": 4, "metrics": ["visual_tokens"]}
    for view, expected in (({}, 2 * 4 + 2 * 2 + 1), ({"hd_num": 4}, 5 * 4 + 3 * 2 + 1)):
        result = evaluate(model, processor, EvaluationOptions(**asked, view=view), progress=False)
        assert result.value("visual_tokens") == expected


def test_another_view_than_the_weights_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(name: str, **changes: Any) -> None:
        with viewing(*made(name, VIEWS[name], monkeypatch), changes):
            pass

    for name, changes in (("4khd", {"newline": False}), ("nvlm", {"tags": "none"}), ("task_tokens", {"tokens": 4})):
        with pytest.raises(UnsupportedError, match="other learned vectors or writes other texts"):
            changed(name, **changes)
    changed("nvlm", max_tiles=3)
    with pytest.raises(RecipeError, match=r"unknown option 'hd_nums'.*hd_num"):
        changed("4khd", hd_nums=9)
    with pytest.raises(UnsupportedError, match="composed models alone"), viewing(None, None, {"hd_num": 9}):
        pass


@pytest.mark.parametrize("tiles", [1, 3, 50])
def test_tiles_encoded_some_at_a_time(both: tuple[Any, Any], tiles: int, tmp_path: Path) -> None:
    """The encoder never sees more at once; logits, answers and what techniques read of the encoder are the same. It may change
    while a model is loaded, and is saved with it."""
    model, processor = both
    inputs, seen = mixed(processor), []
    with torch.no_grad():
        base, answer = model(**inputs).logits, model.generate(**inputs, **ANSWER)
        with argus.attach(model, "fastervlm", keep=0.5) as attachment:
            reduced, kept = model(**inputs).logits, [k.indices.tolist() for k in attachment.kept]
        model.config.tiles_per_pass = tiles
        model.model.vision_tower.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
        torch.testing.assert_close(model(**inputs).logits, base, rtol=1e-4, atol=1e-4)
        count = len(inputs["pixel_values"])
        assert seen == [*[tiles] * (count // tiles), *([count % tiles] if count % tiles else [])]
        assert torch.equal(model.generate(**inputs, **ANSWER), answer)
        with argus.attach(model, "fastervlm", keep=0.5) as attachment:
            torch.testing.assert_close(model(**inputs).logits, reduced, rtol=1e-4, atol=1e-4)
            assert [k.indices.tolist() for k in attachment.kept] == kept
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert load(str(tmp_path))[0].config.tiles_per_pass == tiles


def test_a_number_of_tiles_is_checked() -> None:
    for wrong in (0, 1.5, "many"):
        with pytest.raises(RecipeError, match="tiles_per_pass is a number of tiles"):
            compose({"language_model": "argus/tiny-vlm", "encoder": ENCODER, "tiles_per_pass": wrong})


def test_sizes_are_needed_and_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("anyres", {}, monkeypatch)
    inputs = encode(processor, ["red"], [PICTURES[:1]])
    with pytest.raises(ModelError, match="need their sizes"):
        model(**{k: v for k, v in inputs.items() if k != "image_sizes"})
    with pytest.raises(ModelError, match=r"5 tiles, but 3 were given"):
        model(**{**inputs, "image_sizes": torch.tensor([[30, 30]])})


def test_techniques_work_per_tile(both: tuple[Any, Any]) -> None:
    """FasterVLM: keep 1 changes nothing; half of each tile; a row's separator leaves with the row."""
    model, processor = both
    inputs = mixed(processor)
    with torch.no_grad():
        base = model(**inputs).logits
        answer = model.generate(**inputs, **ANSWER)
        with argus.attach(model, "fastervlm", keep=1.0):
            assert torch.equal(model(**inputs).logits, base)
            assert torch.equal(model.generate(**inputs, **ANSWER), answer)
        with argus.attach(model, "fastervlm", keep=0.5) as attachment:
            assert not torch.equal(model(**inputs).logits, base)
            assert all(len(k.indices) == round(0.5 * k.total) for k in attachment.kept)
            assert len(attachment.kept) == len(inputs["pixel_values"])
    tokens, known = anatomy(model).visual_tokens(inputs), processor.token_map(inputs)
    for name, column in (("tile", [c.tile for c in tokens.crops]), ("image", [c.image for c in tokens.crops])):
        assert getattr(known, name)[tokens.item, tokens.column].tolist() == [column[c] for c in tokens.crop.tolist()]
    assert (known.row * 2 + known.column)[tokens.item, tokens.column].tolist() == tokens.cell.tolist()
    if tokens.breaks is not None:
        assert torch.equal((known.kind == SEPARATOR) | (known.kind == TASK), torch.zeros_like(known.kind).bool().index_put(
            tuple(tokens.breaks.T), torch.tensor(True)
        ))  # fmt: skip
