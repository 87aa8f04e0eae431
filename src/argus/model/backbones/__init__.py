"""Backbones: changes of the language model, recorded in the config and saved with the model."""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "backbone",
        "attention_norms",
        "argus.model.backbones.attention_norms:AttentionNorms",
        "queries, keys and what attention gives are normalised: trains in half precision",
        paper="tinygpt-v",
    ),
    Component(
        "backbone",
        "gated_cross_attention",
        "argus.model.backbones.gated_cross_attention:GatedCrossAttention",
        "tiles are read by gated cross-attention layers: all (NVLM-X), or all but the thumbnail (NVLM-H)",
        paper="nvlm",
    ),
    Component(
        "backbone",
        "partial_lora",
        "argus.model.backbones.partial_lora:PartialLoRA",
        "low-rank updates of the linear layers that only visual tokens pass through",
        paper="xcomposer2-4khd",
    ),
)
