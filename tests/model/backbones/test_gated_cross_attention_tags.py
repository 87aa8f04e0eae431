"""NVLM's tile tags, and what reducers and costs find where tiles are not in the sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import argus
from argus.core.errors import UnsupportedError
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.cost import measure
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.model.anatomy import anatomy
from tests.model.backbones.nvlm import AREA, made
from tests.model.several import ANSWER, PICTURES, encode, mixed


@pytest.mark.parametrize("tags", ["1d", "2d_grid", "2d_box"])
def test_kinds_of_tags(tags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnail = {"thumbnail_tag": "<tile_x0_y9>"} if tags == "2d_grid" else {"thumbnail_tag": "<tile_0>"} if tags == "1d" else {}
    model, processor = made("cross", monkeypatch, tags=tags, **{"thumbnail_tag": None, **thumbnail})
    inputs = mixed(processor)
    assert int(processor.token_map(inputs).tags.sum()) == (3 + 1 + 4) * model.config.tag_length
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()


def test_without_tags_text_still_sees_the_picture_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("cross", monkeypatch, tags="none", thumbnail_tag=None)
    inputs = processor(images=PICTURES[:1], text="blue<image>red", return_tensors="pt")
    assert not processor.token_map(inputs).tags.any()
    with torch.no_grad():
        moved = (model(**inputs).logits != model(**{**inputs, "pixel_values": inputs["pixel_values"] + 1}).logits).any(-1)[0]
    first = int(moved.int().argmax())
    assert processor.tokenizer.decode(inputs["input_ids"][0, :first]) == "blue<Image>"
    assert moved[first:].all()
    with pytest.raises(UnsupportedError, match=r"the view 'nvlm' writes nothing"):
        made("cross", monkeypatch, tags="none", wrap=False)
    hybrid, processor = made("hybrid", monkeypatch, tags="none", wrap=False)
    with torch.no_grad():
        assert torch.isfinite(hybrid(**mixed(processor)).logits).all()


def test_reducers_act_on_the_thumbnail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("hybrid", monkeypatch)
    inputs = mixed(processor)
    tokens = anatomy(model).visual_tokens(inputs)
    assert [(c.item, c.image, c.tile) for c in tokens.crops] == [(0, 0, 2), (1, 0, 0), (1, 1, 3)]
    known = processor.token_map(inputs)
    assert (known.tile[tokens.item, tokens.column] == torch.tensor([2, 0, 3]).repeat_interleave(AREA)).all()
    with torch.no_grad():
        base, answer = model(**inputs).logits, model.generate(**inputs, **ANSWER)
        for name in ("fastervlm", "random"):
            with argus.attach(model, name, keep=1.0):
                assert torch.equal(model(**inputs).logits, base)
                assert torch.equal(model.generate(**inputs, **ANSWER), answer)
            with argus.attach(model, name, keep=0.5) as attachment:
                assert not torch.equal(model(**inputs).logits, base)
                model.generate(**inputs, **ANSWER)
                assert [(k.tile, len(k.indices), k.total) for k in attachment.kept] == [(2, 2, 4), (0, 2, 4), (3, 2, 4)]


def test_reducers_are_refused_where_no_visual_token_is_in_the_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = made("cross", monkeypatch)
    for name in ("fastervlm", "random", "fastv"):
        with pytest.raises(UnsupportedError, match="by cross-attention, so there are no visual tokens in its sequence"):
            argus.attach(model, name, keep=0.5)
    assert not hasattr(model.model, "_argus_layer_plan")
    assert len(anatomy(model).visual_tokens(mixed(processor))) == 0


def test_keys_of_tiles_are_counted_as_cache(both: tuple[Any, Any]) -> None:
    model, processor = both
    message = Message("user", [ImagePart(PICTURES[2]), TextPart("red")])
    question = Question("0", Sample("0", [message]), [PICTURES[2]])
    cost = measure(LocalModel(model, processor), question, decode=1, repeats=1)
    inputs = encode(processor, ["red"], [PICTURES[2:]])
    hybrid = model.model.fusion == "hybrid"
    positions = inputs["input_ids"].shape[1] + (3 if hybrid else 4) * AREA
    assert cost.kv_bytes == positions * 2 * 2 * 24 * 4  # two layers, keys and values, one head of 24, fp32
    assert cost.visual_tokens == [AREA * hybrid] * 2
