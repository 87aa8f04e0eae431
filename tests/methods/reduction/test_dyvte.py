"""All visual tokens of a prompt leave after a layer that a router chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import argus
from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.methods.learned import save_parts
from argus.methods.reduction.dyvte import DyVTE, DyVTEOptions, exit_features
from argus.model.anatomy import anatomy
from tests.methods.brute_force import logits_with
from tests.methods.families import FAMILIES, IMAGE, LAYERS, llava, llava_inputs, single

PLAIN = {"do_sample": False, "eos_token_id": None, "suppress_tokens": [IMAGE]}


def routers(model: Any, file: Path, choose: str | int, seed: int = 5) -> str:
    """The file of routers that always keep (`keep`), exit after one layer, or are left as they are made (`random`)."""
    torch.manual_seed(seed)
    parts: Any = DyVTE(DyVTEOptions(hidden=8)).make(anatomy(model))
    if choose != "random":
        for layer, router in enumerate(parts):
            with torch.no_grad():  # gelu(x) + gelu(-x) > 0, whatever the router reads
                router.inner.weight.copy_(torch.cat([w := torch.randn(4, router.inner.in_features), -w]) * 5)
                router.outer.weight[0] = -1.0 if layer == choose else 1.0
                router.outer.weight[1] = -router.outer.weight[0]
    save_parts(parts, file)
    return str(file)


@pytest.mark.parametrize(("choose", "options"), [("keep", {}), ("random", {"keep": 1.0})])
def test_keeping_is_the_base_model(family: str, tmp_path: Path, choose: str, options: dict[str, Any]) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    file = routers(model, tmp_path / "a.safetensors", choose)
    with torch.no_grad():
        base = model(**inputs).logits
        with argus.attach(model, "dyvte", weights=file, hidden=8, **options) as attachment:
            assert torch.equal(model(**inputs).logits, base)
    assert all(count.kept == count.total for count in attachment.counts)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_exit_at_a_layer_equals_unseen_keys_behind_it(family: str, layer: int, tmp_path: Path) -> None:
    """Routers, the fixed policy, masked keys and a sequence cut by hand agree; behind the last layer nothing changes."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [6])
    visual = anatomy(model).visual_mask(inputs["input_ids"])[0]
    gone = set(visual.nonzero().flatten().tolist())
    expected, columns = logits_with(model, inputs, {layer + 1: gone})
    file = routers(model, tmp_path / "a.safetensors", layer)
    for options in (
        {"weights": file, "hidden": 8},
        {"policy": "fixed", "layer": layer},
        {"policy": "fixed", "layer": layer, "apply": "mask"},
    ):
        with torch.no_grad(), argus.attach(model, "dyvte", **options) as attachment:
            logits = model(**inputs).logits[0]
        torch.testing.assert_close(logits[columns], expected, atol=1e-5, rtol=1e-4)
        assert all((count.kept == 0) == (count.layer > layer) for count in attachment.counts)
    with torch.no_grad():
        same = torch.allclose(model(**inputs).logits[0, -1], expected[-1], atol=1e-5)
    assert same == (layer == LAYERS - 1)


def test_each_layer_caches_what_it_sees(family: str) -> None:
    """S entries up to the exit, S - N_img behind it; decoding equals recomputing the whole sequence, text keeps its positions."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1], [6])
    length = inputs["input_ids"].shape[1]
    gone = set(anatomy(model).visual_mask(inputs["input_ids"])[0].nonzero().flatten().tolist())
    with torch.no_grad(), argus.attach(model, "dyvte", policy="fixed", layer=1):
        cache = model(**inputs, use_cache=True).past_key_values
        assert [layer.keys.shape[2] for layer in cache.layers] == [length, length, length - len(gone)]
        out = model.generate(
            **inputs, max_new_tokens=5, pad_token_id=0, output_logits=True, return_dict_in_generate=True, **PLAIN
        )
    tokens = out.sequences[0, length:].tolist()
    for step, logits in enumerate(out.logits):
        expected, _ = logits_with(model, inputs, {2: gone}, tokens[:step])
        torch.testing.assert_close(logits[0], expected[-1], atol=2e-5, rtol=1e-4)
        if not anatomy(model).mrope:
            shifted, _ = logits_with(model, inputs, {2: gone}, tokens[:step], consecutive={2})
            assert not torch.allclose(logits[0], shifted[-1], atol=1e-3)


def test_items_of_a_batch_exit_where_they_would_alone(family: str, tmp_path: Path) -> None:
    """With routers as they are made: decisions, logits and decoding are those of each prompt by itself."""
    model, pictures = FAMILIES[family].model(), [1, 2, 1, 1]
    inputs = FAMILIES[family].inputs(pictures, [4, 9, 6, 3])
    for seed in range(5, 25):  # new routers decide differently, but often alike for all prompts
        file = routers(model, tmp_path / "a.safetensors", "random", seed)
        with torch.no_grad(), argus.attach(model, "dyvte", weights=file, hidden=8) as attachment:
            model(**inputs)
        if len({tuple(c.kept > 0 for c in attachment.counts if c.item == item) for item in range(4)}) > 1:
            break
    exits = []
    with torch.no_grad(), argus.attach(model, "dyvte", weights=file, hidden=8) as attachment:
        logits = model(**inputs).logits
        together = [[c.kept for c in attachment.counts if c.item == item] for item in range(4)]
        sequences = model.generate(**inputs, max_new_tokens=4, pad_token_id=0, **PLAIN)[:, -4:]
        for item in range(4):
            one = single(inputs, item, family, pictures)
            alone = model(**one).logits[0]
            assert [c.kept for c in attachment.counts] == together[item]
            torch.testing.assert_close(logits[item, -1], alone[-1], atol=2e-5, rtol=1e-4)
            assert torch.equal(model.generate(**one, max_new_tokens=4, pad_token_id=0, **PLAIN)[0, -4:], sequences[item])
            exits.append(sum(kept > 0 for kept in together[item]))
    assert len(set(exits)) > 1, exits


def test_a_router_reads_the_text_behind_the_picture(family: str, tmp_path: Path) -> None:
    """f against the formula, item by item, on the hidden states of the base model; GELU and two products, no biases."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    file = routers(model, tmp_path / "a.safetensors", "random")
    visual, real = anatomy(model).visual_mask(inputs["input_ids"]), inputs["attention_mask"].bool()
    with torch.no_grad(), argus.attach(model, "dyvte", weights=file, hidden=8) as attachment:
        model(**inputs)
    router = attachment.reducer.parts[0]  # type: ignore[attr-defined]
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[1]  # behind layer 0
    for item in range(2):
        start = int(visual[item].nonzero()[0])
        text = [c for c in range(start, visual.shape[1] - 1) if real[item, c] and not visual[item, c]]
        f = torch.cat([states[item, text].mean(0), states[item, -1]])
        keep, leave = router.outer.weight @ F.gelu(router.inner.weight @ f)
        count = next(c for c in attachment.counts if (c.layer, c.item) == (1, item))
        assert (count.kept == 0) == bool(leave > keep)
    assert {name for name, _ in router.named_parameters()} == {"inner.weight", "outer.weight"}


def test_no_text_behind_the_picture() -> None:
    """The mean of nothing is zero, not NaN."""
    hidden = torch.randn(1, 5, 4)
    f = exit_features(hidden, torch.tensor([0]), torch.zeros(1, 5, dtype=torch.bool), torch.tensor([4]))
    assert torch.equal(f, torch.cat([torch.zeros(4), hidden[0, 4]])[None])


def test_a_higher_threshold_exits_later(tmp_path: Path) -> None:
    model, inputs = llava(), llava_inputs([1] * 6, [5] * 6)
    file = routers(model, tmp_path / "a.safetensors", "random")
    kept = []
    for threshold in (-100.0, 0.0, 100.0):
        with torch.no_grad(), argus.attach(model, "dyvte", weights=file, hidden=8, threshold=threshold) as attachment:
            model(**inputs)
        kept.append(sum(c.kept for c in attachment.counts))
    assert 0 == kept[0] < kept[1] < kept[2] == 6 * 36 * 2


def test_behind_an_encoder_side_reducer(family: str, tmp_path: Path) -> None:
    """N_img is what that one left."""
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 1], [4, 6])
    file = routers(model, tmp_path / "a.safetensors", 0)
    with torch.no_grad(), argus.attach(model, "fopru", keep=0.5) as first:
        with argus.attach(model, "dyvte", weights=file, hidden=8) as attachment:
            cache = model(**inputs, use_cache=True).past_key_values
        kept = {c.item: c.kept for c in first.counts}
    assert all(c.before == kept[c.item] and c.kept == 0 for c in attachment.counts if c.layer == 1)
    widths = [layer.keys.shape[2] for layer in cache.layers]
    assert widths[0] > widths[1] == widths[2]


@pytest.mark.parametrize("mean", [0.0, 0.4, 1.0, 1.7, 2.0])
def test_a_lot_has_the_average_asked_for(mean: float) -> None:
    """Over 400 pictures; the same picture always draws the same, whatever else is in the batch."""
    model, inputs = llava(), llava_inputs([1] * 400, [1] * 400)
    with torch.no_grad(), argus.attach(model, "dyvte", policy="random", layer=mean) as attachment:
        model(**inputs)
        exits = torch.tensor([[c.kept > 0 for c in attachment.counts if c.item == i] for i in range(400)]).sum(1)
        model(**single(inputs, 7, "llava", [1] * 400))
        assert sum(c.kept > 0 for c in attachment.counts) == exits[7]
    assert float(exits.float().mean()) == pytest.approx(mean, abs=0.1)
    if mean == 1.0:
        assert set(exits.tolist()) == {0, 1, 2}


def test_only_routers_read_the_question(tmp_path: Path) -> None:
    model = llava()
    file = routers(model, tmp_path / "a.safetensors", "random")
    for options, reads in (({"weights": file, "hidden": 8}, True), ({"policy": "fixed", "layer": 1}, False)):
        with argus.attach(model, "dyvte", **options) as attachment:
            assert attachment.depends_on_question == reads


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UnsupportedError, "have to be trained"),
        ({"policy": "fixed"}, RecipeError, "need `layer`"),
        ({"layer": 1}, RecipeError, "routers take none"),
        ({"policy": "fixed", "layer": 0.5}, RecipeError, "one whole layer"),
        ({"policy": "fixed", "layer": 3}, UnsupportedError, "no layer 3"),
        ({"policy": "fixed", "layer": 1, "keep": 0.5}, UnsupportedError, "exit at once"),
        ({"policy": "random", "calibrate": {}}, UnsupportedError, "calibrated before"),
        ({"weights": "none.safetensors"}, ModelError, "no such file"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        argus.attach(llava(), "dyvte", **options)


def test_routers_of_another_model_are_refused(tmp_path: Path) -> None:
    file = routers(llava(), tmp_path / "a.safetensors", "random")
    with pytest.raises(ModelError, match="do not fit"):
        argus.attach(llava(), "dyvte", weights=file, hidden=16)


def test_half_precision(tmp_path: Path) -> None:
    model, inputs = llava().to(torch.bfloat16), llava_inputs([1, 1], [4, 6])
    file = routers(model, tmp_path / "a.safetensors", 1)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    logits: list[Tensor] = []
    with torch.no_grad():
        for options in ({"weights": file, "hidden": 8}, {"policy": "fixed", "layer": 1}):
            with argus.attach(model, "dyvte", **options):
                logits.append(model(**inputs).logits)
    assert torch.equal(*logits)
