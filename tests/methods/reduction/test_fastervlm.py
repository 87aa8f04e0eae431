"""FasterVLM keeps what its paper says it keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import SiglipVisionConfig

import argus
from argus.core.errors import UnsupportedError
from argus.model.anatomy import anatomy
from tests.methods.families import FAMILIES, llava, llava_inputs, qwen, qwen_inputs
from tests.methods.families import argus as composed


def best(scores: Tensor, count: int) -> list[int]:
    """Ascending indices of the greatest scores."""
    return sorted(scores.argsort(descending=True)[:count].tolist())


def cls_rows(model: Any, pixels: Tensor) -> Tensor:
    """(G, N) head-mean attention of the CLS query, from full eager maps of the block behind the features."""
    tower = model.model.vision_tower
    with torch.no_grad():
        maps = tower(pixels, output_attentions=True).attentions  # L maps; hidden_states has L + 1 entries
    return maps[-2].mean(1)[:, 0, 1:]


def test_set_equals_full_attention_maps() -> None:
    model, eager, inputs = llava(), llava("eager"), llava_inputs([1, 2], [4, 6])
    rows = cls_rows(eager, inputs["pixel_values"])
    with argus.attach(model, "fastervlm", keep=0.25) as attachment, torch.no_grad():
        model(**inputs)
    assert [k.indices.tolist() for k in attachment.kept] == [best(row, 9) for row in rows]
    assert [(k.item, k.image) for k in attachment.kept] == [(0, 0), (1, 0), (1, 1)]


def test_row_equals_map_and_features_are_unchanged() -> None:
    from argus.methods.encoded import Encoder

    model, eager, inputs = llava(), llava("eager"), llava_inputs([2], [4])
    with torch.no_grad():
        features = model.model.get_image_features(inputs["pixel_values"]).pooler_output
        encoder = Encoder(anatomy(model))
        encoder.kinds |= {"cls", "received"}
        heard = model.model.get_image_features(inputs["pixel_values"]).pooler_output
        encoder.remove()
        maps = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[-2].mean(1)
    assert all(torch.equal(a, b) for a, b in zip(features, heard, strict=True))
    scores = encoder.encodings[-1].scores
    torch.testing.assert_close(scores["cls"], maps[:, 0, 1:].flatten(), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores["received"], maps[:, 1:, 1:].mean(1).flatten(), atol=1e-5, rtol=0)


def test_argus_models_give_their_own_row() -> None:
    model, inputs = composed(), llava_inputs([1, 1], [4, 6])
    with torch.no_grad():
        rows = model.model.vision_tower(inputs["pixel_values"], cls_attention=True).cls_attention.mean(1)
        with argus.attach(model, "fastervlm", tokens=7) as attachment:
            model(**inputs)
    assert [k.indices.tolist() for k in attachment.kept] == [best(row, 7) for row in rows]
    assert [c.per_crop for c in attachment.counts] == [(7,), (7,)]


def test_without_cls_patches_are_scored_by_what_they_receive() -> None:
    """SigLIP has no CLS: the mean over queries of a patch's column, or a refusal."""
    model, eager, inputs = llava(encoder="siglip"), llava("eager", encoder="siglip"), llava_inputs([2], [4])
    with torch.no_grad():
        maps = eager.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[-2]
        with argus.attach(model, "fastervlm", keep=0.25) as attachment:
            model(**inputs)
    assert [k.indices.tolist() for k in attachment.kept] == [best(m, 9) for m in maps.mean(1).mean(1)]
    with pytest.raises(UnsupportedError, match="no CLS token"):
        argus.attach(model, "fastervlm", keep=0.25, without_cls="error")
    own = composed(
        vision=SiglipVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=24, patch_size=4
        )
    )
    with argus.attach(own, "fastervlm", keep=0.25) as attachment, torch.no_grad():
        own(**inputs)
    assert [len(k.indices) for k in attachment.kept] == [9, 9]


def test_qwen_averages_received_attention_over_merge_groups() -> None:
    """Brute force from the queries and keys of the last block with full attention, in patch coordinates."""
    model, inputs = qwen(), qwen_inputs([2], [4])  # grids of 8 x 12 and 4 x 8 patches -> 4 x 6 and 2 x 4 tokens
    block = model.model.visual.blocks[1]
    seen: dict[str, Any] = {}
    hook = block.attn.register_forward_pre_hook(lambda m, args, kwargs: seen.update(kwargs, x=args[0]), with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
        hook.remove()
        order, _ = __import__("transformers.vision_utils", fromlist=["x"]).get_vision_window_index(
            inputs["image_grid_thw"], spatial_merge_size=2, window_size=16, patch_size=4
        )
        q, k, _ = block.attn.qkv(seen["x"]).reshape(128, 3, 4, 8).permute(1, 0, 2, 3).unbind(0)  # (P, H, d)
        cos, sin = (e[:, None] for e in seen["position_embeddings"])

        def rotated(x: Tensor) -> Tensor:
            return x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin

        q, k = rotated(q), rotated(k)
        with argus.attach(model, "fastervlm", keep=0.25) as attachment:
            model(**inputs)
    place = 0
    raster = torch.empty(32)
    for size in (96, 32):  # patches of each picture; windows never mix pictures
        part = slice(place, place + size)
        logits = torch.einsum("phd,qhd->hpq", q[part], k[part]) / 8**0.5
        received = logits.softmax(-1).mean((0, 1))  # over heads and queries
        raster[order[place // 4 : (place + size) // 4]] = received.view(-1, 4).mean(-1)
        place += size
    assert attachment.kept[0].grid == (4, 6)
    assert attachment.kept[1].grid == (2, 4)
    assert attachment.kept[0].indices.tolist() == best(raster[:24], 6)
    assert attachment.kept[1].indices.tolist() == best(raster[24:], 2)


def test_the_language_model_gets_shorter_prompts() -> None:
    """Text + T tokens per picture: what the decoder computes on, and what its cache holds."""
    model, inputs = llava(), llava_inputs([2], [4])
    text = inputs["input_ids"].shape[1] - 72
    widths = []
    hook = model.model.language_model.layers[0].self_attn.register_forward_pre_hook(
        lambda m, args, kwargs: widths.append(kwargs["hidden_states"].shape[1]), with_kwargs=True
    )
    with argus.attach(model, "fastervlm", keep=0.25), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    hook.remove()
    assert widths == [text + 18]
    assert [layer.keys.shape[2] for layer in cache.layers] == [text + 18] * 3
    assert cache.get_seq_length() == text + 72


def test_does_not_depend_on_the_question(family: str) -> None:
    with argus.attach(FAMILIES[family].model(), "fastervlm") as attachment:
        assert not attachment.depends_on_question
        assert attachment.options.keep == 0.25
