"""Towers, connectors, views, attention and the token map, each beside a brute-force reference."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from argus.core.errors import ModelError, RecipeError, UnsupportedError
from argus.core.registry import build
from argus.model.attention import matmul_attention
from argus.model.encoders.base import build_tower
from argus.model.encoders.vit import ViT, ViTConfig
from argus.model.features import VisualFeatures
from argus.model.load import compose, load
from argus.model.token_map import ANSWER, PAD, TEXT, VISUAL, token_map
from tests.model.tiny import TOWERS, chat, tiny


@pytest.mark.parametrize("name", TOWERS)
def test_every_tower_gives_features_of_one_shape(name: str) -> None:
    torch.manual_seed(0)
    tower = build_tower(TOWERS[name]).eval()
    with torch.no_grad():
        features = tower(torch.randn(2, 3, 32, 32), hidden_states=True)
    assert features.tokens.shape == (2, 16, 32)
    assert features.grid == (4, 4)
    assert (features.cls is not None) == tower.has_cls == (name != "siglip")
    assert len(features.hidden_states) == 4


@pytest.mark.parametrize("name", [n for n in TOWERS if n not in ("siglip", "vit")])
def test_the_cls_row_is_the_row_of_the_full_map(name: str) -> None:
    torch.manual_seed(0)
    tower = build_tower(TOWERS[name]).eval()
    tower.tower.set_attn_implementation("eager")
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = tower(pixels)
        read = tower(pixels, cls_attention=True)
        extra = tower._extra(pixels)
        full = tower.tower(pixels, output_attentions=True, **extra)
    row = full.attentions[-2][:, :, 0, 1:]  # the block whose output is hidden state -2
    if name == "mae":
        row = row.gather(2, full.ids_restore[:, None].expand_as(row))
    torch.testing.assert_close(read.cls_attention, row, rtol=1e-5, atol=1e-6)
    assert torch.equal(plain.tokens, read.tokens)


def test_the_vits_cls_row_equals_brute_force() -> None:
    torch.manual_seed(0)
    vit = ViT(ViTConfig(intermediate_size=48, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32)).eval()
    with torch.no_grad():
        out = vit(torch.randn(1, 3, 32, 32), cls_attention=True, hidden_states=True)
        x = out.hidden_states[1][0]  # input of block 2 (1-based), whose output is layer -2 of [embeddings, 1, 2, 3]
        block = vit.blocks[1]
        q, k, _ = block.qkv(block.norm1(x)).view(17, 3, 2, 16).unbind(1)
        for head in range(2):
            scores = torch.stack([q[0, head] @ k[j, head] / 4.0 for j in range(17)])  # 4 = sqrt(16)
            torch.testing.assert_close(out.cls_attention[0, head], scores.softmax(0)[1:], rtol=1e-5, atol=1e-6)
    assert torch.equal(out.tokens, out.hidden_states[2][:, 1:])


def test_the_vit_reads_other_sizes() -> None:
    vit = ViT(ViTConfig(intermediate_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32)).eval()
    assert vit(torch.randn(1, 3, 48, 64)).grid == (6, 8)
    assert torch.equal(vit.positions((4, 4)), vit.position)


def test_a_tower_without_cls_refuses_the_row() -> None:
    with pytest.raises(UnsupportedError, match="no CLS token"):
        build_tower(TOWERS["siglip"])(torch.randn(1, 3, 32, 32), cls_attention=True)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_connectors_work_per_token(name: str) -> None:
    connector = build("connector", name, vision_width=8, text_width=12)
    tokens = torch.randn(2, 6, 8)
    out = connector(VisualFeatures(tokens, (2, 3)))
    assert out.shape == (2, 6, 12)
    assert not connector.mixes_tokens
    torch.testing.assert_close(connector(VisualFeatures(tokens[:, 3:4], (1, 1))), out[:, 3:4])


@pytest.mark.parametrize(("mode", "corner"), [("pad", (122, 116, 104)), ("crop", (255, 0, 0)), ("stretch", (255, 0, 0))])
def test_a_square_view_of_a_wide_picture(mode: str, corner: tuple[int, int, int]) -> None:
    tiles = build("view", "square", {"mode": mode})(Image.new("RGB", (40, 20), (255, 0, 0)), 16)
    assert tiles.pixels.shape == (1, 16, 16, 3)
    assert tuple(tiles.pixels[0, 0, 0]) == corner
    x1, y1, x2, y2 = tiles.tiles[0].box
    expected = {"pad": (0, -0.5, 1, 1.5), "crop": (0.25, 0, 0.75, 1), "stretch": (0, 0, 1, 1)}[mode]
    assert (x1, y1, x2, y2) == expected


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize("groups", [1, 2])
def test_matmul_attention_equals_sdpa(kind: str, groups: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4 // groups, 9, 8), torch.randn(2, 4 // groups, 9, 8)
    allowed = torch.ones(5, 9, dtype=torch.bool).tril(4)
    mask: Any = {"none": None, "bool": allowed.expand(2, 1, 5, 9), "float": torch.zeros(2, 1, 5, 9).masked_fill(~allowed, -1e9)}[
        kind
    ]
    out, _ = matmul_attention(torch.nn.Module(), q, k, v, mask)
    full = torch.nn.functional.scaled_dot_product_attention(
        q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), allowed
    )
    torch.testing.assert_close(out, full.transpose(1, 2), rtol=1e-5, atol=1e-6)


def test_models_run_on_matmul_attention() -> None:
    model, processor = tiny()
    prompt = processor.apply_chat_template(chat("What colour?"), tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[Image.new("RGB", (32, 32), "red")], text=prompt, return_tensors="pt")
    with torch.no_grad():
        a = model(**inputs).logits
        model.model.language_model.set_attn_implementation("matmul")
        b = model(**inputs).logits
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_map_knows_picture_tile_and_cell() -> None:
    i = 3
    ids = torch.tensor([[0, 5, i, i, i, i, i, i, 6], [7, i, i, 8, i, i, i, i, 9]])
    mask = torch.tensor([[0] + [1] * 8, [1] * 9])
    found = token_map(ids, i, [(2, 3), (1, 2), (2, 2)], attention_mask=mask)
    assert found.kind.tolist() == [[PAD, TEXT, *[VISUAL] * 6, TEXT], [TEXT, VISUAL, VISUAL, TEXT, *[VISUAL] * 4, TEXT]]
    assert found.row[0].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, -1]
    assert found.column[0].tolist() == [-1, -1, 0, 1, 2, 0, 1, 2, -1]
    assert found.image[1].tolist() == [-1, 0, 0, -1, 1, 1, 1, 1, -1]
    assert found.column[1].tolist() == [-1, 0, 1, -1, 0, 1, 0, 1, -1]
    two_tiles = token_map(ids[:1], i, (1, 3), tiles=[2])
    assert two_tiles.tile[0].tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, -1]
    assert two_tiles.image[0].tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, -1]
    with pytest.raises(ValueError, match="12 placeholders"):
        token_map(ids, i, [(2, 3)])


def test_the_map_grows_and_slices() -> None:
    found = token_map(torch.tensor([[5, 3, 3, 6]]), 3, (1, 2))
    longer = found.extend(2)
    assert len(longer) == 6
    assert longer.kind[0].tolist() == [TEXT, VISUAL, VISUAL, TEXT, TEXT, TEXT]
    assert longer.role[0, -1] == ANSWER
    assert longer.slice(1, 3).visual.all()
    assert longer.select(torch.tensor([0, 0])).kind.shape == (2, 6)


def test_layers_can_read_the_map_through_prefill_chunks_and_decoding() -> None:
    model, processor = tiny()
    lengths: list[tuple[int, int]] = []

    def read(module: Any, args: Any, kwargs: Any) -> None:
        known = model.model.token_map
        lengths.append((len(known), int(known.visual.sum())))

    hook = model.model.language_model.layers[1].register_forward_pre_hook(read, with_kwargs=True)
    prompt = processor.apply_chat_template(chat("What colour?"), tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[Image.new("RGB", (32, 32), "red")], text=prompt, return_tensors="pt")
    size = inputs["input_ids"].shape[1]
    model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert lengths == [(size, 16), (size + 1, 16), (size + 2, 16)]
    lengths.clear()
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        model(inputs["input_ids"][:, :-4], pixel_values=inputs["pixel_values"], past_key_values=cache, use_cache=True)
        model(inputs["input_ids"][:, -4:], past_key_values=cache, use_cache=True)
    assert lengths == [(size - 4, 16), (size, 16)]
    hook.remove()


def test_beams_see_a_map_of_their_own_rows() -> None:
    model, processor = tiny()
    prompt = processor.apply_chat_template(chat("What colour?"), tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[Image.new("RGB", (32, 32), "red")], text=prompt, return_tensors="pt")
    model.generate(**inputs, num_beams=3, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert model.model.token_map.kind.shape == (3, inputs["input_ids"].shape[1] + 2)
    assert (model.model.token_map.visual.sum(1) == 16).all()


def test_composing_from_saved_parts_takes_their_weights(tmp_path: Path) -> None:
    model, processor = tiny()
    model.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    from transformers import LlamaForCausalLM

    lm = LlamaForCausalLM(model.config.text_config)
    lm.model.load_state_dict(model.model.language_model.state_dict())
    lm.save_pretrained(tmp_path / "lm")
    processor.tokenizer.save_pretrained(tmp_path / "lm")
    made, _ = compose({"language_model": str(tmp_path / "lm"), "encoder": str(tmp_path / "vlm"), "connector": "linear"})
    for a, b in ((made.model.vision_tower, model.model.vision_tower), (made.model.language_model, model.model.language_model)):
        for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
            assert torch.equal(x, y), name
    assert made.lm_head.weight is made.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"language_model": "x", "encodr": "y"}, "Did you mean 'encoder'"),
        ({"view": "square"}, "needs one of"),
    ],
)
def test_compose_explains_wrong_parts(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        compose(spec)


def test_loading_explains_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tiny-vlm").mkdir()
    with pytest.raises(ModelError, match="Did you mean"):
        load(str(tmp_path / "tiny-vml"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(str(tmp_path / "tiny-vlm"))
    (tmp_path / "tiny-vlm" / "config.json").write_text("{}")
    (tmp_path / "tiny-vlm" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"pickled weights are not read"):
        load(str(tmp_path / "tiny-vlm"))
    with pytest.raises(ModelError, match="no shipped model 'argus/tiny-vml'"):
        load("argus/tiny-vml")


def test_the_hub_out_of_reach_is_explained() -> None:
    with pytest.raises(ModelError, match="cannot load"):
        load("some-owner/some-model-that-is-not-here")


def test_pixels_are_normalised_as_written() -> None:
    _, processor = tiny()
    array = np.zeros((32, 32, 3), dtype=np.uint8)
    array[..., 0] = 255
    out = processor.image_processor([Image.fromarray(array)])["pixel_values"]
    # (1 - 0.5) / 0.25 = 2 and (0 - 0.5) / 0.25 = -2
    assert out.shape == (1, 3, 32, 32)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([2.0, -2.0, -2.0]))
