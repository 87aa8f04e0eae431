"""How the weights of a composed model's parts start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from tests.model.tiny import BODY, LANGUAGE, TOWERS

WIDTH = BODY["hidden_size"]


def gated() -> ArgusForConditionalGeneration:
    """Its backbone owns no weights but those of its layers, which start with deviation 1 / sqrt(width)."""
    torch.manual_seed(0)
    parts = {"view": {"nvlm": {}}, "backbone": {"gated_cross_attention": {"every": 1, "gate": 0.5}}}
    words = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return ArgusForConditionalGeneration(ArgusConfig(TOWERS["vit"].to_dict(), {**LANGUAGE["llama"], **words}, **parts))


@torch.no_grad()
def test_a_backbone_draws_the_weights_of_its_layers() -> None:
    layer = gated().model.cross_attention.layers[0]
    assert float(layer.cross_attn.q_proj.weight.std()) == pytest.approx(WIDTH**-0.5, rel=0.1)
    assert float(layer.cross_attn_attn_gate) == 0.5


def test_weights_that_no_file_holds_are_drawn_and_the_others_stay(tmp_path: Path) -> None:
    gated().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    layer = "model.cross_attention.layers.0."
    missing = {layer + "cross_attn.q_proj.weight", layer + "cross_attn_attn_gate"}
    held = load_file(file)
    with torch.no_grad():
        held[layer + "cross_attn_mlp_gate"].fill_(2.0)
    save_file({name: weight for name, weight in held.items() if name not in missing}, file, metadata={"format": "pt"})
    loaded = ArgusForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert float(loaded[layer + "cross_attn_attn_gate"]) == 0.5
    assert float(loaded[layer + "cross_attn.q_proj.weight"].std()) == pytest.approx(WIDTH**-0.5, rel=0.1)
    for name in held.keys() - missing:
        assert torch.equal(loaded[name], held[name]), name
