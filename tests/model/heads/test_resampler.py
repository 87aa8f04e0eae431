"""The perceiver that reads embeddings: written out, blind to what may not be read."""

import pytest
import torch
from torch.nn import functional as F

from argus.model.heads.resampler import Resampler


@pytest.mark.parametrize("branch", [False, True])
@torch.no_grad()
def test_it_is_its_equation(branch: bool) -> None:
    torch.manual_seed(0)
    head = Resampler(12, 16, 10, heads=2, head_width=4, branch=branch)
    states, latents, readable = torch.randn(2, 7, 12), torch.randn(2, 3, 12), torch.rand(2, 7) > 0.4
    made = head(states, readable, latents)
    assert made.shape == (2, 3, 10)
    for item in range(2):
        x = F.layer_norm(head.proj_in(states[item][readable[item]]), (16,))  # new norms have gain 1 and shift 0
        out = head.proj_in(latents[item])
        asking = F.layer_norm(out, (16,))
        k, v = (torch.cat([x, asking]) @ head.to_kv.weight.T).split(8, -1)
        q = asking @ head.to_q.weight.T
        parts = []
        for one in (slice(0, 4), slice(4, 8)):
            parts.append((q[:, one] @ k[:, one].T / 2).softmax(-1) @ v[:, one])  # sqrt(4) = 2
        out = out + torch.cat(parts, -1) @ head.to_out.weight.T
        out = out + F.gelu(F.layer_norm(out, (16,)) @ head.feed[1].weight.T) @ head.feed[3].weight.T
        expected = F.layer_norm(head.proj_out(out), (10,))
        torch.testing.assert_close(made[item], head.branch(expected))


@torch.no_grad()
def test_what_may_not_be_read_changes_nothing_and_latents_can_be_its_own() -> None:
    torch.manual_seed(0)
    head = Resampler(12, 16, 10, latents=5)
    states, readable = torch.randn(2, 7, 12), torch.rand(2, 7) > 0.4
    other = torch.where(readable[..., None], states, torch.randn(2, 7, 12))
    assert torch.equal(head(states, readable), head(other, readable))
    assert head(states, readable).shape == (2, 5, 10)
    assert not torch.equal(head(states, readable), head(states, torch.ones_like(readable)))
    assert head.bfloat16()(states.bfloat16(), readable).dtype == torch.bfloat16
