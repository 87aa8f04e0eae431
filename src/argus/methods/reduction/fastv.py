"""FastV: An Image is Worth 1/2 Tokens After Layer 2 (arXiv 2403.06764).

Behind the first layers of a language model, visual tokens receive little attention. After layer K the tokens are
ranked by the attention that the last prompt token pays them in layer K, and the least attended share R leaves.

    a_i = mean_heads A^(K)[last, i]      A^(K): attention map of the K-th layer, counted from 1
    kept = the (1 - R) N greatest of a, in their original order and with their original positions

Defaults are the paper's: K = 2, R = 0.5, so `keep` = 1 - R = 0.5. Only the last row of that layer's map is computed, so
all layers keep their fused kernels. The ranking is over all visual tokens of a prompt together.

The published code has two forms. One masks the dropped tokens out of every later layer, ranks anew at each decoding
step and reads the first item of a batch only; the other removes them once, at prefill, and keeps their position ids.
This follows the second, item by item, with a KV cache that holds fewer tokens in the later layers. The published code
counts image tokens by constants of one prompt template; here they are found in the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from argus.methods.reduction.base import Reducer, ReducerOptions
from argus.methods.reduction.scores import LayerAttention
from argus.methods.reduction.selectors import TopK


class FastVOptions(ReducerOptions):
    """Options of FastV."""

    layer: int = Field(2, ge=1, description="K: the number of layers that see all visual tokens")


class FastV(Reducer):
    """Keeps the visual tokens that the last prompt token attends to in layer K."""

    Options = FastVOptions
    options: FastVOptions
    depends_on_question = True

    def __init__(self, options: FastVOptions) -> None:
        super().__init__(options)
        self.layer = options.layer
        self.score, self.select = LayerAttention("last"), TopK(options.keep, per="item")

    def layers(self, depth: int) -> Sequence[int]:
        return (self.layer,)
