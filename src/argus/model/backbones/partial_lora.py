"""Partial LoRA (InternLM-XComposer2: Mastering Free-form Text-Image Composition and Comprehension, arXiv 2401.16420).

Low-rank updates of the language model that only visual tokens pass through, so that it learns to read pictures and stays the
language model it was for text. InternLM-XComposer2-4KHD (arXiv 2404.06512) trains with them, too. Every linear layer becomes

    y_t = W x_t + b                                     t text
    y_t = W x_t + b + (alpha / r) B A dropout(x_t)      t a position of a picture

Shapes: x (B, S, in), A (r, in), B (out, r). Positions of a picture are its visual tokens and the learned separators between them,
as in the published code, whose mask covers all that stands for the picture. Tokens that are generated have none, so that decoding
costs what it costs the bare model.

r = alpha = 256 and dropout 0.05 are those of the published config, where all linear layers of the decoder have updates (`wqkv`,
`wo`, `w1`, `w2`, `w3`). One difference: there, B keeps the default start of a linear layer; here it is 0, and the model starts
as the language model exactly. The updates depend on the position and cannot be merged into W: they are saved with the model.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from argus.core.errors import UnsupportedError, nearest
from argus.core.registry import Options
from argus.model.backbones.positional import AtRows, Positional


class PartialLoRAOptions(Options):
    """Rank, scale and place."""

    r: int = Field(256, ge=1, description="rank of the update")
    alpha: float = Field(256.0, gt=0, description="scale; the update is multiplied by alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before A")
    targets: list[str] = Field(
        default_factory=list, description="names of the linear layers of the language model that have updates; all when empty"
    )


class Update(nn.Module):
    """B A of one linear layer."""

    def __init__(self, options: PartialLoRAOptions, linear: nn.Linear, own: AtRows) -> None:
        super().__init__()
        like = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        self.lora_A = nn.Linear(linear.in_features, options.r, bias=False, **like)
        self.lora_B = nn.Linear(options.r, linear.out_features, bias=False, **like)
        self.dropout, self.scale = nn.Dropout(options.dropout), options.alpha / options.r
        self._own = [own]  # in a list, so that it is no part of this module
        linear.register_forward_hook(self.behind)

    def reset_parameters(self) -> None:
        """A as a new linear layer's weight, B at 0."""
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def behind(self, linear: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        """Behind W: `out` (B, S, out) with the update added at the chosen positions."""
        rows = self._own[0].rows
        if rows is None:
            return None
        x = args[0]
        if x.shape[:-1] != rows.mask.shape:
            raise UnsupportedError(
                f"partial_lora: a linear layer gets {tuple(x.shape)} of {tuple(rows.mask.shape)} positions, so that nobody knows "
                "which are of pictures: experts sort their positions.",
                hint="Name the linear layers of attention under 'targets'.",
            )
        picked = self.dropout(x.flatten(0, 1)[rows.index])  # (n, in)
        update = self.scale * self.lora_B(self.lora_A(picked))  # (n, out)
        return out.flatten(0, 1).index_add(0, rows.index, update.to(out.dtype)).view_as(out)


class LayerUpdates(AtRows):
    """Those of one decoder layer, by the paths of its linear layers."""

    def __init__(self, name: str, options: PartialLoRAOptions, layer: nn.Module) -> None:
        super().__init__(name)
        for path, module in layer.named_modules():
            if isinstance(module, nn.Linear) and (not options.targets or path.split(".")[-1] in options.targets):
                self.add_module(path.replace(".", "_"), Update(options, module, self))


class PartialLoRA(Positional):
    """The updates of all decoder layers."""

    Options = PartialLoRAOptions
    options: PartialLoRAOptions
    part = "partial_lora"

    def __init__(self, options: PartialLoRAOptions, *, language_model: Any) -> None:
        super().__init__(options, language_model=language_model)
        names = {path.split(".")[-1]: None for path, m in language_model.layers.named_modules() if isinstance(m, nn.Linear)}
        for target in options.targets:
            if target not in names:
                raise UnsupportedError(
                    f"partial_lora: the language model has no linear layer '{target}'.", hint=nearest(target, names)
                )
        if not names:
            raise UnsupportedError("partial_lora: the language model has no linear layers.")
        for layer in language_model.layers:
            self.join(layer, LayerUpdates(self.argument, options, layer))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, Update):
                module.reset_parameters()
