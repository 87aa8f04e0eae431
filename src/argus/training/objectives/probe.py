"""How well what experts know of a picture can be read from each layer of a language model.

The probing of OLA-VLM (arXiv 2412.09585): the model is frozen, and on each layer's states a resampler with latents of its own
learns to predict the expert's embedding of the picture,

    L = sum_l smooth_l1(R_l([system, picture] at layer l), target),      reported: cos_l, the mean cosine of R_l and the target

over all cells but those whose target is 0 and so has no direction: ground, where a truth of the world is looked for. Every
picture of a stage is new, so what a stage logs last is measured on unseen pictures: a recipe reads it as
`variant.stage.<name>_<layer>`. The paper trains one probe after the other; here all learn at once, as they share nothing. States
of task tokens and of the question are not read, so that models with and without task tokens are probed alike.

Such a stage trains the probes alone: `train: [probe]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.model.anatomy import anatomy
from argus.model.heads.resampler import Resampler
from argus.training.objectives.base import Batch, Item
from argus.training.objectives.ola_vlm import asked, reading
from argus.training.objectives.sft import SFT, SFTOptions
from argus.training.teachers import Teacher, TeacherOptions


class ProbeOptions(SFTOptions):
    """What is looked for, and where."""

    teachers: dict[str, TeacherOptions] = Field(min_length=1, description="name -> the expert whose knowledge is looked for")
    layers: list[int] = Field(default_factory=list, description="layers, from 1; 0 are the embeddings; all from 1 when empty")
    cells: int = Field(576, ge=1, description="cells of a predicted map: a square number")


class Probe(SFT):
    """Smooth-L1 of a resampler per layer."""

    Options: ClassVar[type[ProbeOptions]] = ProbeOptions
    options: ProbeOptions

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        depth, width = len(anatomy(model).layers), anatomy(model).root.config.text_config.hidden_size
        layers = self.options.layers or list(range(1, depth + 1))
        if not all(0 <= layer <= depth for layer in layers):
            raise UnsupportedError(f"the layers {layers} are probed, and the language model has {depth}")
        self.teachers = {
            name: Teacher(options, 1 if options.pooled else self.options.cells) for name, options in self.options.teachers.items()
        }
        self.parts = nn.ModuleDict()
        for name, teacher in self.teachers.items():
            self.parts[name] = nn.ModuleDict(
                {str(n): Resampler(width, width, teacher.width, latents=teacher.cells) for n in layers}
            )
        self.parts.to(next(model.parameters()).device)

    def techniques(self) -> dict[str, nn.Module]:
        return {"probe": self.parts}

    def per_picture(self, items: Sequence[Item], owners: Sequence[str], pictures: Sequence[Image]) -> dict[str, Tensor]:
        return asked(self.teachers, items, owners, pictures)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if "pixel_values" not in batch:
            raise UnsupportedError("a probe looks for what pictures show, and this batch has none")
        with torch.no_grad():
            states = self.run(model, batch, output_hidden_states=True).hidden_states
        row, readable, _ = reading(anatomy(model).root.token_map, batch["sample"], None, text=False)
        losses, shown = [], {}
        for name, teacher in self.teachers.items():
            known = batch[f"known_{name}"]
            target = teacher.targets(batch[f"teacher_{name}"])[known].float()  # (P, n, E)
            counts = target.any(-1)  # (P, n)
            for layer, probe in self.parts[name].items():  # type: ignore[operator]
                made = probe(states[int(layer)][row], readable)[known].float()
                losses.append(F.smooth_l1_loss(made, target) if len(made) else made.sum())
                cosine = F.cosine_similarity(made, target, dim=-1)[counts]
                shown[f"{name}_{layer}"] = cosine.sum().detach() / counts.sum().clamp(min=1)
        return torch.stack(losses).sum(), shown
