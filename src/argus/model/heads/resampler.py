"""A small perceiver that reads embeddings out of states of a language model.

OLA-VLM: Elevating Visual Perception in Multimodal LLMs with Auxiliary Embedding Distillation (arXiv 2412.09585). Latents Q ask,
the states X and the latents themselves answer, once (W is shared by both):

    q = Q W,  x = X W                                              (B, n, C), (B, L, C)
    q = q + O softmax((A LN q) (K [LN' x ; LN q])^T / sqrt(d)) (V [LN' x ; LN q])
    q = q + FF(q)                                                  FF = LN, linear, GELU, linear
    y = LN(P q)                                                    (B, n, E)

Sizes are those of the published code: one block, 4 heads of 32, a feed-forward layer as wide as C; attention and feed-forward
have no bias; softmax in fp32. For depth there are two more matrices with ReLU behind (the code has three such branches, of which
one gets a loss; here is that one). Latents of its own, for a head that is given none, are drawn from N(0, 1) / sqrt(C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Resampler(nn.Module):
    """States (B, L, D), and which of them may be read -> embeddings (B, n, E).

    Args:
        state_width: D.
        width: C, inside.
        output_width: E.
        latents: how many latents it has of its own; none where they are given.
        heads, head_width: of the attention.
        branch: two matrices with ReLU behind everything else.
    """

    def __init__(
        self,
        state_width: int,
        width: int,
        output_width: int,
        *,
        latents: int | None = None,
        heads: int = 4,
        head_width: int = 32,
        branch: bool = False,
    ) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.latents = nn.Parameter(torch.randn(latents, state_width) * width**-0.5) if latents is not None else None
        self.proj_in, self.proj_out = nn.Linear(state_width, width), nn.Linear(width, output_width)
        self.norm_states, self.norm_latents, self.norm_out = (nn.LayerNorm(w) for w in (width, width, output_width))
        self.to_q, self.to_kv = nn.Linear(width, inner, bias=False), nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width, bias=False), nn.GELU(), nn.Linear(width, width, bias=False)
        )
        ends = (nn.Linear(output_width, output_width), nn.ReLU(), nn.Linear(output_width, output_width)) if branch else ()
        self.branch = nn.Sequential(*ends)

    def forward(self, states: Tensor, readable: Tensor, latents: Tensor | None = None) -> Tensor:
        """Embeddings (B, n, E).

        Args:
            states: (B, L, D).
            readable: (B, L) bool.
            latents: (B, n, D), or (n, D) the same for all, for a head that has none of its own.
        """
        given = self.latents if latents is None else latents
        assert given is not None
        x = self.norm_states(self.proj_in(states))
        out = self.proj_in(given).expand(len(x), -1, -1)  # (B, n, C)
        asking = self.norm_latents(out)
        q = self.to_q(asking).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, n, d)
        k, v = (
            one.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, L + n, d)
            for one in self.to_kv(torch.cat([x, asking], 1)).chunk(2, -1)
        )
        scale = q.shape[-1] ** -0.25
        scores = (q * scale) @ (k * scale).transpose(-1, -2)  # (B, h, n, L + n)
        seen = torch.cat([readable, readable.new_ones(len(x), out.shape[1])], 1)[:, None, None]
        weights = scores.float().masked_fill(~seen, -torch.inf).softmax(-1).to(v.dtype)
        out = out + self.to_out((weights @ v).transpose(1, 2).flatten(2))
        out = out + self.feed(out)
        return self.branch(self.norm_out(self.proj_out(out)))
