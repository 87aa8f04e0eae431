"""Every view x encoder x connector x backbone of the registry: it runs a forward pass, or it is refused with a reason beforehand.

Parts are shared, so that thousands of combinations take seconds: encoders and language models are built once, connectors once per
encoder, prompts once per view and grid. Two prompts stand in a batch: two pictures of different shape, and one picture.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig

from argus.core.errors import UnsupportedError
from argus.core.registry import build, components
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.processor import processor_for
from argus.model.views.assembly import Assembly
from argus.model.views.base import places
from argus.model.views.texts import picture_texts, tag_length
from tests.model.connectors.test_qformer import SIZES
from tests.model.tiny import LANGUAGE, tokenizer

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}
VIT = {"vit": SMALL}
FAST = {"fastvit_hd": {"depths": (1, 1), "widths": (8, 32), "attention_stages": 1, "image_size": 32}}
VIEWS: dict[str, dict[str, Any]] = {
    "internvl": {"max_tiles": 4},
    "nvlm": {"max_tiles": 4, "thumbnail_tag": "<tile_0>"},
    "4khd": {"hd_num": 4},
    "tokenpacker_hd": {"max_tiles": 4},
    "ovis": {"max_tiles": 4},
    "task_tokens": {"tokens": 2, "rows": 16},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "vit": SMALL,
    "transformers": {**SMALL, "model_type": "internvl_vision"},
    "s2": {"encoder": VIT, "scales": [1, 2], "image_size": 32},
    "vitamin": {"conv_widths": (4, 8), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32},
    "fastvit_hd": {"depths": (1, 1), "widths": (8, 32), "attention_stages": 1, "image_size": 32},
    "comm": {"towers": [{"encoder": VIT, "merge": "select", "align": 0}] * 2},
    "low_high": {"low": VIT, "high": FAST, "image_size": 32},
}
CONNECTORS: dict[str, dict[str, Any]] = {
    "emma": {"text_length": 8},
    "mg_llava": {"bins": 2},
    "mqt": {"max_tokens": 4},
    "ovis": {"vocabulary": 12},
    "pool": {"side": 2},
    "qformer": {**SIZES, "through": None},
    "tokenpacker": {"levels": (1, -1)},
    "x_former": {**SIZES, "contrastive_width": 16},
}
BACKBONES: list[dict[str, dict[str, Any]]] = [
    {},
    {"attention_norms": {}},
    {"gated_cross_attention": {"fusion": "cross", "every": 1}},
    {"gated_cross_attention": {"fusion": "hybrid", "every": 1}},
]
PICTURES = [
    Image.fromarray(np.random.default_rng(n).integers(0, 256, (h, w, 3), dtype=np.uint8))
    for n, (w, h) in enumerate([(70, 30), (32, 32), (30, 75)])
]
TEXTS = ["<image>\nred <image> blue", "<image>\nHow many?"]
WORDS = tokenizer()


def names(kind: str) -> list[str]:
    return [row.name for row in components(kind)]


def encoder_config(name: str) -> Any:
    def config(spec: dict[str, Any]) -> Any:
        one, options = next(iter(spec.items()))
        made = build("encoder", one, options)
        return made.config(*(config(part) for part in getattr(made, "parts", ())))

    return config({name: ENCODERS[name]})


def built(
    encoder: Any, connector: str, backbone: dict[str, Any], instruction: Any, language: dict[str, Any] | None = None
) -> ArgusForConditionalGeneration:
    ids = {"vocab_size": len(WORDS), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    language = language or {**LANGUAGE["llama"], **ids, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    view = {"nvlm": VIEWS["nvlm"]} if "gated_cross_attention" in backbone else {"square": {}}
    parts = {"connector": {connector: CONNECTORS.get(connector, {})}, "view": view, "backbone": backbone}
    return ArgusForConditionalGeneration(ArgusConfig(encoder, language, instruction_config=instruction, **parts)).eval()


def with_view(model: ArgusForConditionalGeneration, name: str) -> None:
    """The same model with another view, checked as a new one is."""
    view = build("view", name, VIEWS.get(name, {}))
    model.config.view = {name: VIEWS.get(name, {})}
    model.config.tag_length, model.config.picture_texts = tag_length(view, WORDS), picture_texts(view, WORDS)
    model.model.image_assembly = Assembly(view, 16)
    model.model._check_parts()


@torch.no_grad()
def test_the_whole_product_runs_or_is_refused_with_a_reason() -> None:
    torch.manual_seed(0)
    text = CLIPTextConfig(
        hidden_size=12, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=8,
        vocab_size=len(WORDS), bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    outcome: Counter[str] = Counter()
    refused: dict[tuple[str, ...], str] = {}
    prompts: dict[Any, Any] = {}
    for encoder in names("encoder"):
        config = encoder_config(encoder)
        for connector in names("connector"):
            for backbone in BACKBONES:
                kind = next(iter(backbone.values()), {}).get("fusion", next(iter(backbone), "plain"))
                try:
                    model = built(config, connector, backbone, text if connector == "emma" else None)
                except UnsupportedError as error:
                    refused.update({(view, encoder, connector, kind): str(error) for view in names("view")})
                    continue
                for view in names("view"):
                    try:
                        with_view(model, view)
                        grid = model.model.visual_grid()
                        part = model.model.multi_modal_projector
                        key = (view, model.model.vision_tower.image_size, grid, connector == "emma", part.reads_boxes, kind)
                        if key not in prompts:
                            prompts[key] = processor_for(model.model, WORDS)(PICTURES, TEXTS, padding=True, return_tensors="pt")
                    except UnsupportedError as error:
                        refused[view, encoder, connector, kind] = str(error)
                        continue
                    logits = model(**prompts[key]).logits
                    assert logits.shape[:2] == prompts[key]["input_ids"].shape
                    assert logits.isfinite().all(), (view, encoder, connector, kind)
                    outcome[kind] += 1
    total = len(BACKBONES) * len(names("view")) * len(names("encoder")) * len(names("connector"))
    assert sum(outcome.values()) + len(refused) == total
    assert set(outcome) == {"plain", "attention_norms", "cross", "hybrid"}
    assert all(len(reason) > 20 for reason in refused.values())
    expected = {  # of every kind of reason, one
        ("square", "fastvit_hd", "tokenpacker", "plain"): "gives none on the grid of its tokens",
        ("square", "vit", "mg_llava", "plain"): "gives one",
        ("internvl", "low_high", "mg_llava", "plain"): "one tile of the whole picture",
        ("anyres", "vit", "mqt", "plain"): "have no places in the picture",
        ("square", "vit", "mlp", "cross"): "the view 'square' cuts none",
        ("task_tokens", "vit", "mlp", "hybrid"): "task tokens",
        ("square", "vit", "x_former", "plain"): "leave none for a masked autoencoder",
    }
    for combination, reason in expected.items():
        assert reason in refused.get(combination, "it ran"), combination


@torch.no_grad()
def test_every_connector_feeds_an_encoder_decoder() -> None:
    """It composes with the connectors that a causal language model composes with, behind one encoder and behind two."""
    ids = {"vocab_size": len(WORDS), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = CLIPTextConfig(hidden_size=12, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, **ids)
    sizes = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, **ids}
    language = {"model_type": "prefix_lm", "seq2seq": sizes}
    fits: dict[str, set[tuple[str, str]]] = {"llama": set(), "t5": set()}
    for encoder in ("vit", "comm"):
        for connector in names("connector"):
            for kind in fits:
                instruction = text if connector == "emma" else None
                try:
                    model = built(encoder_config(encoder), connector, {}, instruction, language if kind == "t5" else None)
                except UnsupportedError:
                    continue
                fits[kind].add((encoder, connector))
                if kind == "t5":
                    inputs = processor_for(model.model, WORDS)(PICTURES, TEXTS, padding=True, return_tensors="pt")
                    assert model(**inputs).logits.isfinite().all(), connector
    assert fits["t5"] == fits["llama"]
    assert ("comm", "x_former") in fits["t5"]


@pytest.mark.parametrize("view", names("view"))
def test_placeholders_are_what_the_layouts_say(view: str) -> None:
    """Every picture's positions are counted out by hand: the cells of its tiles, and the learned vectors between them."""
    config, found = encoder_config("vit"), build("view", view, VIEWS.get(view, {}))
    for connector in ("mlp", "pixel_shuffle"):
        model = built(config, connector, {}, None)
        with_view(model, view)
        batch = processor_for(model.model, WORDS)(PICTURES, TEXTS, padding=True, return_tensors="pt")
        cells = model.model.visual_grid()
        each = [len(places(found.layout(*p.size, 32, cells))) for p in PICTURES]
        assert (batch["input_ids"] == 3).sum(1).tolist() == [each[0] + each[1], each[2]]
        assert len(batch["pixel_values"]) == sum(found.count(*p.size, 32) for p in PICTURES)
