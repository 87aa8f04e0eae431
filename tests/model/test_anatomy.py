"""Where the parts of a model are, and which visual tokens an input has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from argus.core.errors import UnsupportedError
from argus.model.anatomy import anatomy, families
from tests.methods.families import FAMILIES, IMAGE, llava, llava_inputs, qwen, qwen_inputs


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_names_its_parts(family: str) -> None:
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs([1, 2], [4, 6])
    parts = anatomy(model)
    assert parts.family == family
    assert len(parts.layers) == 3
    assert any(m is parts.vision_tower for m in model.modules())
    assert any(m is parts.projector for m in model.modules())
    tokens = parts.visual_tokens(inputs)
    shown = tokens.mask(*inputs["input_ids"].shape)
    if tokens.breaks is not None:
        shown[tokens.breaks[:, 0], tokens.breaks[:, 1]] = True
    assert torch.equal(shown, inputs["input_ids"] == IMAGE)
    assert [(c.item, c.image) for c in tokens.crops if not c.tile] == [(0, 0), (1, 0), (1, 1)]
    if FAMILIES[family].plain:
        assert len(tokens.crops) == len(parts.vision_pixels(inputs)) == 3
    for number, (crop, start, stop) in enumerate(tokens.spans()):
        cells = tokens.cell[tokens.crop == number]
        assert cells.diff().gt(0).all()
        assert cells[-1] < crop.grid[0] * crop.grid[1]
        assert (inputs["input_ids"][crop.item, start:stop] == IMAGE).all()
    position_ids = torch.zeros(3, 1, 2, dtype=torch.long) if parts.mrope else torch.zeros(1, 2, dtype=torch.long)
    cos, _ = parts.rotary(torch.zeros(1, 2, 32), position_ids)
    assert cos.shape == (1, 2, 8)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_bare_and_wrapped_models(family: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = FAMILIES[family].model()
    layers = anatomy(model).layers
    assert anatomy(model.model).layers is layers
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))
    assert anatomy(wrapped).layers is layers


def test_what_the_families_differ_in() -> None:
    assert (anatomy(llava()).has_cls, anatomy(llava()).mrope, anatomy(llava()).connector_mixes) == (True, False, False)
    assert not anatomy(llava(encoder="siglip")).has_cls
    assert (anatomy(qwen()).has_cls, anatomy(qwen()).mrope, anatomy(qwen()).connector_mixes) == (False, True, True)
    assert (anatomy(FAMILIES["argus"].model()).has_cls, anatomy(FAMILIES["argus"].model()).mrope) == (True, False)


def test_block_behind_the_features() -> None:
    """LLaVA selects hidden state -2, the output of the next to last block; Qwen2.5-VL's last block with full attention is 1."""
    model = llava()
    parts = anatomy(model)
    assert parts.encoder_attention is model.model.vision_tower.encoder.layers[-2].self_attn
    model.config.vision_feature_layer = [-1, -3]
    assert parts.encoder_attention is model.model.vision_tower.encoder.layers[-3].self_attn
    model.config.vision_feature_layer = 0
    with pytest.raises(UnsupportedError, match="patch embeddings"):
        _ = parts.encoder_attention
    tower = qwen()
    assert anatomy(tower).encoder_attention is tower.model.visual.blocks[1].attn


def test_cls_token_in_the_prompt_has_no_cell() -> None:
    """With the `full` strategy a picture's first visual token is its CLS token: it is never a candidate."""
    model = llava()
    model.config.vision_feature_select_strategy = "full"
    inputs = llava_inputs([1], [3])
    row = inputs["input_ids"][0].tolist()
    inputs["input_ids"] = torch.tensor([[*row[:2], IMAGE, *row[2:]]])
    tokens = anatomy(model).visual_tokens(inputs)
    assert tokens.cell.tolist() == list(range(36))
    assert tokens.column.tolist() == list(range(3, 39))


def test_videos_are_crops_by_time() -> None:
    """Two time steps of 4 x 8 patches, then a picture; the prompt's order counts, not the processor's."""
    model = qwen()
    ids = torch.tensor([[1, 58, *[61] * 16, 59, 58, *[IMAGE] * 8, 59, 9]])
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "image_grid_thw": torch.tensor([[1, 4, 8]]),
        "video_grid_thw": torch.tensor([[2, 4, 8]]),
    }
    tokens = anatomy(model).visual_tokens(inputs)
    assert [(c.image, c.tile, c.grid) for c in tokens.crops] == [(0, 0, (2, 4)), (0, 1, (2, 4)), (1, 0, (2, 4))]
    assert tokens.column.tolist() == [*range(2, 18), *range(20, 28)]


def test_prompt_and_pictures_must_agree() -> None:
    inputs = llava_inputs([2], [3])
    inputs["pixel_values"] = inputs["pixel_values"][:1]
    with pytest.raises(UnsupportedError, match="72 visual tokens, its pictures give 36"):
        anatomy(llava()).visual_tokens(inputs)


def test_unknown_families_are_named() -> None:
    model = LlamaForCausalLM(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(UnsupportedError, match=r"'llama' is not known.*llava"):
        anatomy(model)
    with pytest.raises(UnsupportedError, match="'int' is not known"):
        anatomy(3)
    assert {kind for kind, _ in families()} == {*FAMILIES}
    assert all(len(text) > 20 for _, text in families())
    assert qwen_inputs([1], [1])["image_grid_thw"].shape == (1, 3)
