"""Tuners: model -> model with few trainable weights, mergeable where the maths allows."""

from argus.core.registry import Component

COMPONENTS = (
    Component("tuner", "lora", "argus.training.tuners.lora:LoRA", "low-rank updates of the linear layers (peft)"),
    Component(
        "tuner",
        "partial_lora",
        "argus.training.tuners.partial_lora:PartialLoRATuner",
        "low-rank updates that only visual tokens pass through",
        paper="xcomposer2-4khd",
    ),
)
