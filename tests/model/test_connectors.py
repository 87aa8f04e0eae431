"""Connectors: the registry's promises, held by every one of them."""

import pytest
import torch

from argus.core.registry import build
from argus.model.features import VisualFeatures


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_connectors_work_per_token(name: str) -> None:
    connector = build("connector", name, vision_width=8, text_width=12)
    tokens = torch.randn(2, 6, 8)
    out = connector(VisualFeatures(tokens, (2, 3)))
    assert out.shape == (2, 6, 12)
    assert not connector.mixes_tokens
    torch.testing.assert_close(connector(VisualFeatures(tokens[:, 3:4], (1, 1))), out[:, 3:4])


def test_the_mlp_is_the_formula() -> None:
    """v = W2 GELU(W1 z + b1) + b2, with the language model's width between unless told otherwise."""
    mlp = build("connector", "mlp", vision_width=8, text_width=12)
    z = torch.randn(1, 3, 8)
    hidden = z @ mlp.linear_1.weight.T + mlp.linear_1.bias
    gelu = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(mlp(VisualFeatures(z, (1, 3))), gelu @ mlp.linear_2.weight.T + mlp.linear_2.bias)
    assert mlp.linear_1.out_features == 12
    assert build("connector", "mlp", {"hidden": 20}, vision_width=8, text_width=12).linear_1.out_features == 20
    assert mlp.tokens((2, 3)) == (2, 3)
