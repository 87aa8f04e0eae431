"""Connectors that shrink the grid: the pool-adapter and pixel shuffle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.training.parts import set_trainable
from tests.model.connectors.composed import composed, features, picture
from tests.model.tiny import chat


def made(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return build("connector", name, options, vision_width=16, text_width=12).eval()


def mlp(connector: Any, tokens: torch.Tensor) -> torch.Tensor:
    return connector.linear_2(F.gelu(connector.linear_1(tokens)))


def test_the_pool_adapter_averages_blocks_in_raster_order() -> None:
    connector, seen = made("pool", side=4), features(grid=(8, 8))
    maps = seen.tokens.transpose(1, 2).view(2, 16, 8, 8)
    pooled = F.avg_pool2d(maps, 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(connector(seen), mlp(connector, pooled))
    assert connector.tokens((8, 8)) == (4, 4)


def test_pooling_to_the_own_grid_is_the_mlp() -> None:
    connector, seen = made("pool", side=8), features(grid=(8, 8))
    torch.testing.assert_close(connector(seen), mlp(connector, seen.tokens))


def test_unequal_blocks_are_refused_unless_asked_for() -> None:
    with pytest.raises(UnsupportedError, match="8 x 8 patches cannot be averaged to 3 x 3"):
        made("pool", side=3).tokens((8, 8))
    connector, seen = made("pool", side=3, adaptive=True), features(grid=(8, 8))
    maps = seen.tokens.transpose(1, 2).view(2, 16, 8, 8)
    torch.testing.assert_close(connector(seen), mlp(connector, F.adaptive_avg_pool2d(maps, 3).flatten(2).transpose(1, 2)))


@pytest.mark.parametrize(
    ("name", "options", "keeps"),
    [
        ("pool", {"side": 4}, True),
        ("pixel_shuffle", {}, True),
        ("tokenpacker", {"levels": [1, 2]}, True),
        ("mqt", {"max_tokens": 16, "heads": 2}, False),
    ],
)
def test_what_moves_by_a_cell_moves_its_token_by_one(name: str, options: dict[str, Any], keeps: bool) -> None:
    """Equivariance on a map that is rolled by two columns of patches; a resampler has no places to keep."""
    connector, seen = made(name, **options), features(grid=(8, 8))

    def roll(x: torch.Tensor, by: int, side: int) -> torch.Tensor:
        return x.view(2, side, side, -1).roll(by, 2).flatten(1, 2)

    assert seen.hidden_states is not None
    states = tuple(torch.cat([s[:, :1], roll(s[:, 1:], 2, 8)], 1) for s in seen.hidden_states)
    rolled = connector(replace(seen, tokens=roll(seen.tokens, 2, 8), hidden_states=states))
    assert torch.allclose(rolled, roll(connector(seen), 1, 4), atol=1e-5) == keeps


def test_pixel_shuffle_is_the_published_permutation() -> None:
    """A numbered 4 x 4 grid: output token 0 is patches 0, 1, 4, 5, token 1 is 2, 3, 6, 7, and nothing is lost."""
    connector, seen = made("pixel_shuffle"), features(grid=(4, 4))
    seen = replace(seen, tokens=torch.arange(16.0).view(1, 16, 1).expand(2, 16, 16))
    inputs: list[torch.Tensor] = []
    connector.norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    assert connector(seen).shape == (2, 4, 12)
    assert inputs[0][0, :, ::16].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    with pytest.raises(UnsupportedError, match="no whole squares"):
        connector.tokens((4, 5))


def test_pixel_shuffle_has_the_biases_of_internvl_on_request() -> None:
    assert made("pixel_shuffle").linear_1.bias is None
    assert made("pixel_shuffle", bias=True).linear_2.bias is not None


def test_pooled_pictures_in_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 + before + p^2 + after positions; a batch padded on the left answers as each prompt does alone."""
    model, processor = composed(monkeypatch, {"pool": {"side": 4}})
    texts = ["How many things are there?", "What colour?"]
    prompts = [processor.apply_chat_template(chat(t), tokenize=False, add_generation_prompt=True) for t in texts]
    pictures = [picture(1), picture(2)]
    how = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    batch = processor(images=pictures, text=prompts, padding=True, return_tensors="pt")
    together = model.generate(**batch, **how)[:, -5:]
    for row, (prompt, shown) in enumerate(zip(prompts, pictures, strict=True)):
        one = processor(images=[shown], text=prompt, return_tensors="pt")
        plain = processor.tokenizer(prompt, add_special_tokens=False).input_ids
        assert one["input_ids"].shape[1] == len(plain) - 1 + 16
        assert model.generate(**one, **how)[0, -5:].tolist() == together[row].tolist()


def test_the_three_stages_of_infmllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter alone; with the encoder and the language model's query and value matrices; with the whole language model."""
    model, _ = composed(monkeypatch, {"pool": {"side": 4}})
    adapter, whole = "multi_modal_projector", "language_model"

    def learning() -> set[str]:
        return {n for n, p in model.named_parameters() if p.requires_grad}

    assert set(set_trainable(model, [adapter])) == {adapter}
    set_trainable(model, [adapter, "vision_tower", "q_proj", "v_proj"])
    second = {n for n in learning() if whole in n}
    assert second == {n for n, _ in model.named_parameters() if whole in n and ("q_proj" in n or "v_proj" in n)}
    assert {n for n in learning() if whole not in n} == {
        n for n, _ in model.named_parameters() if adapter in n or "vision_tower" in n
    }
    set_trainable(model, [adapter, whole])
    assert learning() == {n for n, _ in model.named_parameters() if adapter in n or whole in n}


def test_sizes_are_the_published_ones() -> None:
    """EVA-CLIP ViT-g (1408) and LLaMA-2-7B: 32 x 32 patches at 448 px become 256 tokens."""
    with torch.device("meta"):
        connector = build("connector", "pool", vision_width=1408, text_width=4096)
    assert connector.tokens((32, 32)) == (16, 16)
    assert sum(p.numel() for p in connector.parameters()) == 1408 * 4096 + 4096 + 4096 * 4096 + 4096
