"""Attention under a policy by hand: who is dropped is seen by itself alone."""

from __future__ import annotations

import torch

from argus.methods.reduction.policy_attention import policy_softmax


def test_policy_softmax_by_hand() -> None:
    """Rows (0, -, -), (1, 2, -), (0.5, 1, 1.5) under the policy (1, 0, 1): the second token sees itself although it is
    dropped, the third does not see it. exp(-1) / (1 + exp(-1)) = 0.268941."""
    low = torch.finfo(torch.float32).min
    scores = torch.tensor([[0, low, low], [1, 2, low], [0.5, 1, 1.5]])[None, None]
    weights = policy_softmax(scores, torch.tensor([[1.0, 0.0, 1.0]]), 1e-6)[0, 0]
    expected = torch.tensor([[1, 0, 0], [0.268941, 0.731059, 0], [0.268941, 0, 0.731059]])
    torch.testing.assert_close(weights, expected, atol=2e-6, rtol=0)
    leaks = weights[[0, 0, 1, 2], [1, 2, 2, 1]]  # eps / 3 over the denominators 1 and 1.3679
    torch.testing.assert_close(leaks, torch.tensor([3.333e-7, 3.333e-7, 2.437e-7, 2.437e-7]), atol=1e-9, rtol=0)
    assert policy_softmax(scores, torch.tensor([[1.0, 0.0, 1.0]]), 0.0)[0, 0, 2, 1] == 0
