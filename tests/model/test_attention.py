"""Attention as two matrix products, beside the fused kernel."""

from typing import Any

import pytest
import torch
from PIL import Image

from argus.model.attention import matmul_attention
from tests.model.tiny import chat, tiny


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


@pytest.mark.parametrize("kind", ["sdpa", "eager", "matmul"])
def test_left_padding_and_gradients_are_those_of_sdpa(kind: str) -> None:
    """Grouped queries, a padded batch and the backward pass through all layers."""

    def run(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        model, _ = tiny()
        model.model.language_model.set_attn_implementation(name)
        ids = torch.tensor([[0, 0, 5, 6, 7], [4, 5, 6, 7, 8]])
        mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
        logits = model(ids, attention_mask=mask).logits
        logits[mask.bool()].square().mean().backward()
        return logits[mask.bool()].detach(), model.model.language_model.layers[0].self_attn.k_proj.weight.grad

    for mine, sdpa in zip(run(kind), run("sdpa"), strict=True):
        torch.testing.assert_close(mine, sdpa, rtol=1e-3, atol=1e-4)
