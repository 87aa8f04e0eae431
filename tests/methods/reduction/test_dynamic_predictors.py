"""Dynamic-LLaVA's predictors (arXiv 2412.00876) by hand: what they say, and what tokens that left change."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from argus.methods.reduction.dynamic_predictors import ImagePredictor, Predictors, TextPredictor, by_picture

SIZES = {"width": 16, "heads": 2, "blocks": 2}


def predictors(bias: float = -2.8) -> Predictors:
    """Random predictors for states of width 32; of generated tokens they keep some."""
    torch.manual_seed(1)
    parts = Predictors(32, **SIZES)
    with torch.no_grad():
        for parameter in parts.text.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
        parts.text.head[-1].bias += torch.tensor([bias, -bias])
    return parts.eval()


def test_image_predictor_by_hand() -> None:
    """One picture of 5 tokens, of which the second left earlier: written out with sums over the others."""
    predictor = ImagePredictor(6, 8, heads=2, blocks=2).double()
    x, prev = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0)).double(), torch.tensor([1, 0, 1, 1, 1])
    w = dict(predictor.named_parameters())

    def norm(t: Tensor, name: str) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(t: Tensor, name: str) -> Tensor:
        return t @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))

    h = F.gelu(linear(norm(x[0], "inner.0"), "inner.1")) * prev[:, None]  # (5, 8)
    for b in ("blocks.0", "blocks.1"):
        q, k, v = linear(norm(h, f"{b}.norm1"), f"{b}.qkv").chunk(3, dim=-1)
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            rows = []
            for i in range(5):
                seen = [j for j in range(5) if prev[j] or j == i]
                rows.append((k[seen, part] @ q[i, part] / 2).softmax(0) @ v[seen, part])
            heads.append(torch.stack(rows))
        h = h + linear(torch.cat(heads, -1), f"{b}.proj")
        h = h + linear(F.gelu(linear(norm(h, f"{b}.norm2"), f"{b}.mlp.0")), f"{b}.mlp.2")
    shared = h[[0, 2, 3, 4], 4:].mean(0)
    out = torch.cat([h[:, :4], shared.expand(5, 4)], dim=-1)
    out = linear(F.gelu(linear(F.gelu(linear(out, "head.0")), "head.2")), "head.4")
    logits = predictor(x, prev[None, :, None].double())
    assert logits.shape == (1, 5, 2)
    torch.testing.assert_close(logits[0], out)


def test_reference_vector_of_fixed_weights() -> None:
    """Weights 0.1, biases 0, x = (1, 2, 3, 6): LayerNorm gives (-1.0690, -0.5345, 0, 1.6036), whose sum is 0; so the text
    predictor's inner layer is GELU(b), and with b = 1 everything behind it can be done on paper."""
    predictor = TextPredictor(4, 8)
    with torch.no_grad():
        for name, parameter in predictor.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 0.1 if parameter.ndim > 1 else 1.0)
        predictor.inner[1].bias.fill_(1.0)
        predictor.head[4].bias.copy_(torch.tensor([0.0, 0.5]))
    # GELU(1) = 0.841345; 8 * 0.1 * 0.841345 = 0.673076, GELU 0.504600; 4 * 0.1 * 0.504600 = 0.201840, GELU 0.117064;
    # 2 * 0.1 * 0.117064 = 0.023413
    logits = predictor(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    torch.testing.assert_close(logits, torch.tensor([0.023413, 0.523413]), atol=1e-5, rtol=0)


def test_tokens_that_left_and_padding_change_nothing() -> None:
    predictor, random = predictors().image, torch.Generator().manual_seed(0)
    states, group = torch.randn(7, 32, generator=random), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    present = torch.tensor([True, True, True, True, False, True, True])
    padded = by_picture(states, present, group)
    assert padded.states.shape == (2, 4, 32)
    both = predictor(padded.states, padded.prev)[padded.real]  # (7, 2)
    alone = predictor(states[None, :3], torch.ones(1, 3, 1))
    torch.testing.assert_close(both[:3], alone[0])
    states[4] = 99.0
    padded = by_picture(states, present, group)
    again = predictor(padded.states, padded.prev)[padded.real]
    torch.testing.assert_close(again[[3, 5, 6]], both[[3, 5, 6]])
