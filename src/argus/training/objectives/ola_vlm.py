"""OLA-VLM: Elevating Visual Perception in Multimodal LLMs with Auxiliary Embedding Distillation (arXiv 2412.09585).

While a model learns to answer, small resamplers on chosen layers of the language model have to predict what experts know of the
picture: its depth, its segmentation, and an embedding for generation. They read the layer's states of the picture, of the task's
own learned tokens (view `task_tokens`) and of the text, not the tokens of other tasks. Afterwards resamplers and experts go, and
the task tokens stay.

    y = R_tl(latents_t, [system, picture, tokens of t, text] at layer l)
    L = L_answer + sum_t w_t sum_l ( smooth_l1(y, target_t) + 0.3 CE(min(exp s_t, 100) cos(y_i, target_tj), i = j) )

Latents of depth and segmentation are the learned rows themselves, that of generation the mean of its tokens' states. Without task
tokens the resamplers have latents of their own, as in the code. Gradients reach the layers up to l.

Weights (w = 0.5, 0.3), s = 2 at the start, smooth-L1 with beta 1 and the layers d18-20, s10-18, g12-20 of a 32-layer model (1 is
the first layer's output) are those of the published scripts. The code zeroes its masks just before it multiplies the losses with
them, so that they vanish; here they count, as the paper says: pictures that an expert does not know are left out of both terms.
The contrast is among the pictures of one process. Where the code counts on 576 tokens and a system text of known length, here the
token map says what is what; in a row of several samples each picture is read with its own sample's text, and without the other
pictures.

Shapes: states (B, S, D), P pictures, targets (P, n, E).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from PIL.Image import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.model.anatomy import anatomy
from argus.model.heads.resampler import Resampler
from argus.model.token_map import TASK, TokenMap
from argus.model.views.task_tokens import spans
from argus.training.objectives.base import Batch, Item
from argus.training.objectives.sft import SFT, SFTOptions
from argus.training.teachers import Teacher, TeacherOptions

Name = Literal["gen", "depth", "seg"]
WEIGHT = 0.5  # of a task's loss


class OlaVLMOptions(SFTOptions):
    """Who teaches what to which layers."""

    teachers: dict[Name, TeacherOptions] = Field(default_factory=dict, description="expert of each task; without one it is off")
    layers: dict[Name, list[int]] = Field(
        default={"depth": [18, 20], "seg": [10, 18], "gen": [12, 20]}, description="layers that are taught, from 1"
    )
    weights: dict[Name, float] = Field(default_factory=dict, description="weight of each task's loss, 0.5 if not given; 0 is off")
    contrast: float = Field(0.3, ge=0, description="weight of the contrast among pictures; 0 leaves it out")
    text: bool = Field(True, description="let resamplers read the text behind the picture")
    cells: int = Field(576, ge=1, description="cells of a predicted map where the model has no task tokens: a square number")


class Predictors(nn.Module):
    """The resamplers of all tasks and layers, and the contrast's scales."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.scales = nn.ModuleDict(), nn.ParameterDict()


class OlaVLM(SFT):
    """Answers, and embeddings of experts from the states of layers."""

    Options: ClassVar[type[OlaVLMOptions]] = OlaVLMOptions
    options: OlaVLMOptions

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        o, root = self.options, anatomy(model).root
        depth, width = len(anatomy(model).layers), root.config.text_config.hidden_size
        tasks = getattr(getattr(root, "view", None), "tasks", ())
        self.spans, rows = spans(tasks), {task.name: task.rows for task in tasks}
        self.teachers: dict[Name, Teacher] = {}
        self.parts = Predictors()
        for task, options in o.teachers.items():
            if not o.weights.get(task, WEIGHT):
                continue
            layers = o.layers.get(task, [])
            if not layers or not all(1 <= layer <= depth for layer in layers):
                raise UnsupportedError(
                    f"'{task}' is taught to the layers {layers}, and the language model has {depth}.", hint="Set 'layers'."
                )
            cells = 1 if task == "gen" else rows.get(task, o.cells)
            self.teachers[task] = teacher = Teacher(options, cells)
            inside = width if task == "depth" else teacher.width
            own = None if task in self.spans else cells
            self.parts.heads[task] = nn.ModuleDict(
                {str(n): Resampler(width, inside, teacher.width, latents=own, branch=task == "depth") for n in layers}
            )
            self.parts.scales[task] = nn.Parameter(torch.tensor(2.0))
        self.parts.to(next(model.parameters()).device)

    def techniques(self) -> dict[str, nn.Module]:
        return {"ola_vlm": self.parts} if self.teachers else {}

    def per_picture(self, items: Sequence[Item], owners: Sequence[str], pictures: Sequence[Image]) -> dict[str, Tensor]:
        return asked(self.teachers, items, owners, pictures)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.teachers:
            return super().loss(model, batch)
        output = self.run(model, batch, output_hidden_states=True)
        total, parts = self.answer_loss(model, batch, output.last_hidden_state)
        for task, teacher in self.teachers.items():
            if "pixel_values" not in batch:
                parts[task] = total.new_zeros(())
                continue
            target, known = teacher.targets(batch[f"teacher_{task}"]).float(), batch[f"known_{task}"]
            found = [
                self.distance(task, made[known], target[known])
                for made in self.predictions(task, anatomy(model).root, output.hidden_states, batch)
            ]
            parts[task] = torch.stack(found).sum()
            total = total + self.options.weights.get(task, WEIGHT) * parts[task]
        return total, {name: part.detach() for name, part in parts.items()}

    def predictions(self, task: str, root: Any, states: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """(P, n, E) fp32 from each layer that is taught the task; `states` are the embeddings and what each layer gives."""
        row, readable, own = reading(root.token_map, batch["sample"], self.spans.get(task), text=self.options.text)
        found = []
        for layer, head in self.parts.heads[task].items():  # type: ignore[operator]
            x = states[int(layer)][row]  # (P, S, D)
            latents = None
            if task == "gen" and task in self.spans:
                latents = (x * own[..., None]).sum(1, keepdim=True) / own.sum(1)[:, None, None]  # (P, 1, D)
            elif task in self.spans:
                latents = root.image_assembly.task_rows(task)  # (n, D)
            found.append(head(x, readable, latents).float())
        return found

    def distance(self, task: str, made: Tensor, target: Tensor) -> Tensor:
        """Smooth-L1 and contrast of (P, n, E) against (P, n, E); 0 where P is 0."""
        if not len(made):
            return made.sum()
        loss = F.smooth_l1_loss(made, target)
        if not self.options.contrast:
            return loss
        with torch.autocast(made.device.type, enabled=False):
            a, b = (F.normalize(x.flatten(1).float(), dim=-1) for x in (made, target))
            logits = a @ b.T * self.parts.scales[task].exp().clamp(max=100)
        return loss + self.options.contrast * F.cross_entropy(logits, torch.arange(len(a), device=a.device))


def asked(
    teachers: Mapping[Any, Teacher], items: Sequence[Item], owners: Sequence[str], pictures: Sequence[Image]
) -> dict[str, Tensor]:
    """What each teacher reads of each picture, as `teacher_<name>`, and whether it knows the picture, as `known_<name>`."""
    by_id = {item[0].id if isinstance(item, tuple) else item.id: item for item in items}
    found = {}
    for name, teacher in teachers.items():
        found[f"teacher_{name}"], found[f"known_{name}"] = teacher.collate([by_id[one] for one in owners], pictures)
    return found


def reading(known: TokenMap, sample: Tensor, span: slice | None, *, text: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What is read of each of the P pictures in rows of tokens.

    Args:
        known: the map of the rows (B, S).
        sample: (B, S) which sample a position belongs to; -1 on padding.
        span: numbers of the task tokens that are read; none when not given.
        text: read the text behind the picture too.

    Returns:
        row (P,) of each picture; readable (P, S) bool: text of its sample, its visual tokens and separators, and those task
        tokens; own (P, S) bool: those task tokens alone.
    """
    count = known.image.amax(1) + 1
    row = torch.arange(len(count), device=count.device).repeat_interleave(count)
    number = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    mine = known.image[row] == number[:, None]  # (P, S)
    place = torch.arange(sample.shape[1], device=row.device)
    first, last = torch.where(mine, place, sample.shape[1]).amin(1), torch.where(mine, place, -1).amax(1)
    same = sample[row] == sample[row, first][:, None]
    words = same & ~known.placeholders[row] & ((place <= last[:, None]) | text)
    task = mine & (known.kind[row] == TASK)
    column = known.column[row]
    own = task & (column >= span.start) & (column < span.stop) if span is not None else torch.zeros_like(task)
    return row, words | (mine & ~task) | own, own
