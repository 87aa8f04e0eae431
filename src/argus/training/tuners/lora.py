"""LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685), through peft.

    W' = W + (alpha / r) B A,  A ~ Kaiming uniform (r, in),  B = 0 (out, r)

so the tuned model starts as the base model exactly. By default the language model's linear layers are adapted and the
connector learns in full, as LLaVA's LoRA recipe does; the part is named, so no layer of the vision tower is caught by accident.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from argus.core.errors import RecipeError
from argus.core.registry import Options
from argus.training.parts import belongs, resolved


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

        parts, names, full = (resolved(model, given) for given in ([self.options.part], self.options.targets, self.options.full))
        targets = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
            and any(belongs(name, part) for part in parts)
            and (not names or any(f".{name}".endswith(f".{one}") for one in names))
        ]
        # By whole paths: peft takes a name for the end of a path, and a `norm` for every `input_norm`.
        saved = [name for name, _ in model.named_modules() if any(f".{name}".endswith(f".{part}") for part in full)]
        if not targets:
            raise RecipeError(f"part '{self.options.part}' has no linear layer to adapt")
        config = LoraConfig(
            r=self.options.r,
            lora_alpha=self.options.alpha,
            lora_dropout=self.options.dropout,
            target_modules=targets,
            modules_to_save=saved or None,
        )
        return get_peft_model(model, config)
