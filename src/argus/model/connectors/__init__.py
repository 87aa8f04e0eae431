"""Connectors: VisualFeatures -> visual tokens (B, M, D) in the language model's width."""

from argus.core.registry import Component

COMPONENTS = (
    Component("connector", "linear", "argus.model.connectors.linear:Linear", "one matrix, as in the first LLaVA"),
    Component("connector", "mlp", "argus.model.connectors.mlp:MLP", "two layers with GELU, as in LLaVA-1.5"),
)
