"""LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685), through peft.

    W' = W + (alpha / r) B A,  A ~ Kaiming uniform (r, in),  B = 0 (out, r)

so the tuned model starts as the base model exactly. By default the language model's linear layers are adapted and the
connector learns in full, as LLaVA's LoRA recipe does; the part is named, so no layer of the vision tower is caught by accident.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from argus.core.errors import RecipeError, nearest
from argus.core.registry import Options
from argus.training.parts import part_names


class LoRAOptions(Options):
    """Rank, scale and place."""

    r: int = Field(8, ge=1, description="rank of the update")
    alpha: float = Field(16.0, gt=0, description="scale; the update is multiplied by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before A")
    part: str = Field("language_model", description="the part whose linear layers are adapted")
    targets: list[str] = Field(default_factory=list, description="names of the linear layers in it that are; all when empty")
    full: list[str] = Field(default_factory=list, description="parts that learn in full beside it")


class LoRA:
    """Wraps a model with peft; the adapters merge into the weights."""

    Options = LoRAOptions

    def __init__(self, options: LoRAOptions) -> None:
        self.options = options

    def apply(self, model: nn.Module) -> nn.Module:
        """The tuned model.

        Raises:
            RecipeError: a part that the model does not have, or one without linear layers.
        """
        from peft import LoraConfig, get_peft_model

        known = part_names(model)
        for part in (self.options.part, *self.options.targets, *self.options.full):
            if part not in known:
                raise RecipeError(f"the model has no part '{part}'.", hint=nearest(part, known))
        targets = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
            and self.options.part in name.split(".")
            and (not self.options.targets or name.split(".")[-1] in self.options.targets)
        ]
        # By whole paths: peft takes a name for the end of a path, and a `norm` for every `input_norm`.
        full = [name for name, _ in model.named_modules() if name.split(".")[-1] in self.options.full]
        if not targets:
            raise RecipeError(f"part '{self.options.part}' has no linear layer to adapt")
        config = LoraConfig(
            r=self.options.r,
            lora_alpha=self.options.alpha,
            lora_dropout=self.options.dropout,
            target_modules=targets,
            modules_to_save=full or None,
        )
        return get_peft_model(model, config)
