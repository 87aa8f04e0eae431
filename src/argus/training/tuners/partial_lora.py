"""Partial LoRA as a tuner (InternLM-XComposer2-4KHD, arXiv 2404.06512): low-rank updates that only visual tokens pass through.

What it computes and where its constants come from stands in `argus.model.backbones.partial_lora`. The tuner adds the updates to a
model of any family, or finds those of an earlier stage, and lets only them learn, with the parts that are named under `full`: the
paper trains encoder and connector beside them while the language model stays as it is. Text is then read exactly as before.

    stages: {learn: {tuner: {partial_lora: {r: 64, alpha: 64, full: [multi_modal_projector]}}, ...}}

They cannot be merged into the weights, so they stay part of the model: a later stage trains them like any other part, by the name
`partial_lora`.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from argus.core.errors import UnsupportedError
from argus.model.backbones.added import add_backbone
from argus.model.backbones.partial_lora import PartialLoRAOptions
from argus.training.parts import belongs, resolved


class PartialLoRATunerOptions(PartialLoRAOptions):
    """Rank, scale and place, and what learns beside the updates."""

    full: list[str] = Field(default_factory=list, description="parts that learn in full beside it")


class PartialLoRATuner:
    """Adds the updates; everything else is frozen but `full`."""

    Options = PartialLoRATunerOptions

    def __init__(self, options: PartialLoRATunerOptions) -> None:
        self.options = options

    def apply(self, model: nn.Module) -> nn.Module:
        """The model itself, with the updates in it.

        Raises:
            RecipeError: a part that the model does not have.
            UnsupportedError: a model with adapters of peft around its layers.
        """
        if hasattr(model, "get_base_model"):
            raise UnsupportedError(
                "partial_lora goes around a model's own linear layers, and these have adapters.", hint="Merge them."
            )
        full = resolved(model, self.options.full)
        updates = add_backbone(model, "partial_lora", PartialLoRAOptions(**self.options.model_dump(exclude={"full"})))
        model.requires_grad_(False)
        updates.requires_grad_(True)
        for name, parameter in model.named_parameters():
            if any(belongs(name, part) for part in full):
                parameter.requires_grad_(True)
        return model
