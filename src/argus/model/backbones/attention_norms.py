"""Norms inside attention, so that a small language model trains on pictures in half precision.

TinyGPT-V: Efficient Multimodal Large Language Model via Small Backbones (arXiv 2312.16862). Fine-tuning Phi-2 on pictures in fp16
overflows; queries and keys are normalised per head before they are rotated, and what attention gives before it is added. In
Phi-2's block, whose attention and MLP are parallel:

    n = LN(x);  y = x + RMS(Attn(n; q = Rot(LN_q(W_q n)), k = Rot(LN_k(W_k n)))) + MLP(n)

so that |q . k| / sqrt(d) <= sqrt(d) where the norms start, whatever n is. Shapes: x (B, S, D); LN_q, LN_k over the d of a head, a
pair per block for all heads; RMS over D. eps is 1e-5, Phi-2's.

Here they hook any language model whose attention has `q_proj` and `k_proj`. They are no identity for a model that was trained
without them, so its language is partly learned anew. With all of them off the model is as it was. The authors' code keeps W_q,
W_k and W_v as one matrix; `published_weights` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.backbones.base import Backbone, Pass

EPS = 1e-5
PUBLISHED = {"q_layernorm": "q_head_norm", "k_layernorm": "k_head_norm", "post_layernorm": "out_norm"}


class AttentionNormsOptions(Options):
    """Which norms there are; without any, attention is only watched."""

    qk: bool = Field(True, description="normalise queries and keys per head")
    post: bool = Field(True, description="normalise what attention gives")


class Norms(nn.Module):
    """Those of one block.

    Args:
        options: which there are.
        attention: the block's attention.
        size: d of a head.
        width: D.
    """

    def __init__(self, options: AttentionNormsOptions, attention: nn.Module, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.q_head_norm = nn.LayerNorm(size, EPS) if options.qk else nn.Identity()
        self.k_head_norm = nn.LayerNorm(size, EPS) if options.qk else nn.Identity()
        self.out_norm = nn.RMSNorm(width, EPS) if options.post else nn.Identity()
        self.longest: dict[str, Tensor] = {}  # in the last training pass, per head: the longest query and the longest key
        self._attention = [attention]  # in a list, so that it is no part of this module
        self._hooked: dict[str, tuple[nn.Module, Any]] = {}
        attention.register_forward_hook(self.behind)
        self.follow()

    def follow(self) -> None:
        """Hook the projections that are there now: an adapter may have been put around them, or merged."""
        for name, hook in (("q_proj", self.query), ("k_proj", self.key)):
            module = getattr(self._attention[0], name)
            known, handle = self._hooked.get(name, (None, None))
            if module is known:
                continue
            if handle is not None:
                handle.remove()
            # Whoever replaces a module may have handed its hooks on.
            held = hook in module._forward_hooks.values()
            self._hooked[name] = (module, None if held else module.register_forward_hook(hook))

    def query(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        """Behind W_q. Methods, so that the copy of a model hooks its own layers."""
        return self._heads("q", self.q_head_norm, out)

    def key(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        """Behind W_k."""
        return self._heads("k", self.k_head_norm, out)

    def behind(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        """Behind attention."""
        states, *rest = out if isinstance(out, tuple) else (out,)
        states = self.out_norm(states).to(states.dtype)
        return (states, *rest) if isinstance(out, tuple) else states

    def _heads(self, name: str, norm: nn.Module, out: Tensor) -> Tensor:
        heads = norm(out.unflatten(-1, (-1, self.size))).to(out.dtype)  # (B, S, h, d)
        if self.training:
            self.longest[name] = heads.detach().float().norm(dim=-1).amax((0, 1))  # (h,)
        return heads.flatten(-2)

    def largest(self) -> Tensor:
        """Bound of the attention logits in the last training pass: |q| |k| / sqrt(d) of the longest of a head."""
        q, k = self.longest["q"], self.longest["k"]
        return (q * k.repeat_interleave(len(q) // len(k))).max() * self.size**-0.5


class AttentionNorms(Backbone):
    """The norms of all blocks."""

    Options = AttentionNormsOptions
    options: AttentionNormsOptions
    part = "attention_norms"

    def __init__(self, options: AttentionNormsOptions, *, language_model: Any) -> None:
        super().__init__(options, language_model=language_model)
        self.keeps_words = not (options.qk or options.post)
        config = language_model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attentions = list(_attentions(language_model))
        if not attentions:
            raise UnsupportedError(
                f"attention_norms: the attention of '{config.model_type}' has no q_proj and k_proj to put norms behind.",
                hint="Llama, Qwen2, Mistral, Phi and their like have them.",
            )
        self.norms = nn.ModuleList(Norms(options, attention, size, config.hidden_size) for attention in attentions)

    def begin(self, run: Pass) -> dict[str, Any]:
        for norms in self.norms:
            norms.follow()  # type: ignore[operator]
        return {}

    def statistics(self) -> dict[str, Tensor]:
        found = [norms.largest() for norms in self.norms if norms.longest]  # type: ignore[operator]
        return {"attention_logit": torch.stack(found).max()} if found else {}


def _attentions(language_model: nn.Module) -> Iterator[nn.Module]:
    for module in language_model.modules():
        if {"q_proj", "k_proj"} <= {name for name, _ in module.named_children()}:
            yield module


def published_weights(stored: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Weights of the authors' language model by the names of transformers' Phi body and of these norms.

    Args:
        stored: `query_key_value` holds (heads, (q, k, v), d) rows; names of the body as in transformers.
        heads: attention heads.
    """
    found = {}
    for name, weight in stored.items():
        if ".query_key_value." in name:
            for kind, part in zip("qkv", weight.unflatten(0, (heads, 3, -1)).unbind(1), strict=True):  # (h, d, ...) each
                found["language_model." + name.replace("query_key_value", f"{kind}_proj")] = part.flatten(0, 1)
        elif (last := name.split(".")[-2]) in PUBLISHED:
            layer = name.split("layers.")[1].split(".")[0]
            found[f"attention_norms.norms.{layer}.{PUBLISHED[last]}.{name.split('.')[-1]}"] = weight
        else:
            found[f"language_model.{name}"] = weight
    return found
