"""Gated cross-attention between decoder layers (NVLM: Open Frontier-Class Multimodal LLMs, arXiv 2409.11402).

One view, encoder and connector, three ways into the language model: tiles in its sequence (`decoder`, NVLM-D), tiles read by
extra layers as in Flamingo but without a resampler (`cross`, NVLM-X), or the thumbnail in the sequence and the tiles by extra
layers (`hybrid`, NVLM-H). In front of every n-th decoder layer, with gates a, b that start at 0 and V the tiles' visual tokens,

    x <- x + tanh(a) Attention(q = LN x, k = v = V)        x <- x + tanh(b) FFN(LN x)

A tile's tag sees its own tile; text behind a picture sees all of its tiles; text before it, the thumbnail and padding see
nothing of it (`seen`). A row that sees nothing passes both steps unchanged, so text without pictures is the language model's own.

Shapes: x (B, S, D), V (N, D) of all pictures, keys and values (B, h_kv, K, d) padded over the batch. They are computed once, when
a picture comes, and kept beside the KV cache.

Sources: NVLM-X and -H are not published as code. The 72B model has 10 such layers in 80. Where the paper says no more than "gated
cross-attention", the layer is that of Mllama (Llama 3.2 Vision): RMSNorm of heads, gated FFN, grouped queries, no positions on
keys. The weights carry its names, so its layers load unchanged. One difference: there, rows that see nothing see everything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.backbones.base import Backbone, Pass
from argus.model.backbones.fusion import Fusion
from argus.model.backbones.seen import GIVEN, Seen, seen, visible


class GatedCrossAttentionOptions(Options):
    """How pictures enter, and where the layers are."""

    fusion: Fusion = Field(
        "cross", description="tiles in the sequence, by cross-attention, or only the thumbnail in the sequence"
    )
    every: int = Field(8, ge=1, description="a layer in front of every n-th decoder layer")
    gate: float = Field(0.0, ge=-3, le=3, description="where gates start, in front of tanh; at 0 text is not changed by pictures")


class RMSNorm(nn.RMSNorm):
    """In the type of what it is given, which autocast would not give the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class CrossAttention(nn.Module):
    """Text attends to visual tokens, by the language model's attention kernel where that takes a mask."""

    is_causal = False

    def __init__(self, config: PretrainedConfig, eps: float) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        shared = getattr(config, "num_key_value_heads", None) or heads
        size = getattr(config, "head_dim", None) or width // heads
        self.config, self.size, self.num_key_value_groups = config, size, heads // shared
        self.q_proj = nn.Linear(width, heads * size, bias=False)
        self.k_proj = nn.Linear(width, shared * size, bias=False)
        self.v_proj = nn.Linear(width, shared * size, bias=False)
        self.o_proj = nn.Linear(heads * size, width, bias=False)
        self.q_norm, self.k_norm = RMSNorm(size, eps), RMSNorm(size, eps)

    def keys(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, h_kv, d) of visual tokens (N, D)."""
        key, value = (p(visual).unflatten(-1, (-1, self.size)) for p in (self.k_proj, self.v_proj))
        return self.k_norm(key).to(value.dtype), value

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        query = self.q_norm(self.q_proj(x).unflatten(-1, (-1, self.size))).transpose(1, 2)  # (B, h, S, d)
        kernel = "matmul" if self.config._attn_implementation in ("matmul", "eager") else "sdpa"
        out, _ = ALL_ATTENTION_FUNCTIONS[kernel](
            self, query.to(value.dtype), key, value, mask, scaling=self.size**-0.5, is_causal=False
        )
        return self.o_proj(out.flatten(-2))


class FeedForward(nn.Module):
    """down(act(gate x) * up x)"""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        width, hidden = config.hidden_size, config.intermediate_size
        self.gate_proj, self.up_proj = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class GatedLayer(nn.Module):
    """One layer in front of a decoder layer.

    Args:
        config: the language model's, for widths, heads and activation.
        index: number among its like.
        gate: where gates start.
    """

    def __init__(self, config: PretrainedConfig, index: int, gate: float) -> None:
        super().__init__()
        self.index, self.gate = index, gate
        eps = getattr(config, "rms_norm_eps", 1e-5)
        self.cross_attn, self.mlp = CrossAttention(config, eps), FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden_size, eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps)
        self.cross_attn_attn_gate = nn.Parameter(torch.empty(1))
        self.cross_attn_mlp_gate = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, with deviation 1 / sqrt(width) like those of a new language model."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for gate in (self.cross_attn_attn_gate, self.cross_attn_mlp_gate):
            nn.init.constant_(gate, self.gate)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """x (B, S, D) behind both steps; of rows (B, S, 1) that see nothing, x itself."""
        h = x + self.cross_attn_attn_gate.tanh() * self.cross_attn(self.input_layernorm(x), key, value, mask)
        h = h + self.cross_attn_mlp_gate.tanh() * self.mlp(self.post_attention_layernorm(h))
        return torch.where(rows, h.to(x.dtype), x)

    def enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In front of a decoder layer. A method, so that the copy of a model hooks its own layers."""
        given: Seen | None = kwargs.get(GIVEN)
        if given is None:
            return None
        given.reached = True
        x = args[0] if args else kwargs["hidden_states"]
        x = self(x, *given.layers[self.index], given.mask, given.rows)
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})


def drop(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """In front of a decoder layer, which is not to see what only gated layers read."""
    return args, {k: v for k, v in kwargs.items() if k != GIVEN}


class GatedCrossAttention(Backbone):
    """The layers of a model, and what they see in each pass."""

    Options = GatedCrossAttentionOptions
    options: GatedCrossAttentionOptions
    part = "cross_attention"

    def __init__(self, options: GatedCrossAttentionOptions, *, language_model: Any) -> None:
        super().__init__(options, language_model=language_model)
        self.fusion = options.fusion
        self.layers = nn.ModuleList()
        if self.fusion == "decoder":
            return
        depth = len(language_model.layers)
        if options.every > depth:
            raise UnsupportedError(
                f"the language model has {depth} layers, so there is nothing in front of every {options.every}-th.",
                hint=f"Set every to {depth} or less.",
            )
        for number, layer in enumerate(language_model.layers, start=1):
            if number % options.every == 0:
                gated = GatedLayer(language_model.config, len(self.layers), options.gate)
                self.layers.append(gated)
                layer.register_forward_pre_hook(gated.enter, with_kwargs=True)
            layer.register_forward_pre_hook(drop, with_kwargs=True)

    def reset_parameters(self) -> None:
        for layer in self.layers:
            layer.reset_parameters()  # type: ignore[operator]

    def begin(self, run: Pass) -> dict[str, Any]:
        batch = len(run.known.kind)
        keys: Seen | None = getattr(run.cache, GIVEN, None)
        if keys is not None:
            keys = keys.repeated(batch)
        if run.crossed is not None and run.places is not None and len(run.crossed.tokens):
            layers: list[Any] = list(self.layers)
            new = seen(run.crossed, run.places, run.start, [one.cross_attn.keys(run.crossed.tokens) for one in layers])
            new = new.repeated(batch)
            keys = new if keys is None else keys.join(new)
        return {} if keys is None else {GIVEN: keys.masked(visible(keys, run.known, run.past, run.mask))}

    def end(self, given: dict[str, Any], cache: Any) -> None:
        if GIVEN not in given:
            return
        if not given[GIVEN].reached:
            raise UnsupportedError("this language model does not hand its arguments on to its decoder layers.")
        if cache is not None:
            setattr(cache, GIVEN, replace(given[GIVEN], mask=None, rows=None))
