"""Supervised fine-tuning on conversations about pictures (LLaVA: Visual Instruction Tuning, arXiv 2304.08485).

    L = - mean over answer tokens t of log p(x_t | picture, question, x_<t)

Only answers are learned; which tokens they are `argus.training.turns` finds. A picture's questions share its visual tokens as a
prefix (see `argus.training.rows`): with independent turns eight questions cost 144 + 8 * 15 tokens instead of 8 * 159, and each
is learned exactly as if asked alone.
Where a picture's visual tokens depend on the question (`processor.depends_on_question`), each question has a row of its own.
So has each answer of a dialogue where an encoder reads what stands before it, and the loss is that of the decoder.

Shapes: pixel_values (tiles of all pictures, 3, H, W), rows (B, S) with the processor's visual placeholders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, Literal
from zlib import crc32

import torch
from PIL.Image import Image
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.images import load_image
from argus.core.registry import Options
from argus.core.sample import Sample, in_words
from argus.model.backbones.base import Backbone
from argus.model.connectors.base import Connector
from argus.model.prefix_lm import PrefixLM
from argus.training.objectives.base import Batch, Item, Objective
from argus.training.rows import assemble, bias, supervised, visible
from argus.training.turns import answer_by_answer, apart, blinded, encode, last_answers, shortened
from argus.world.data import conversation
from argus.world.domain import Domain, Drawing

READ = ("image_sizes", "visual_tokens", "instruction_ids", "boxes")  # beside ids and pixels, where a model wants them


class SFTOptions(Options):
    """How turns see each other, and how rows are filled."""

    turns: Literal["independent", "conversation"] = Field(
        "independent", description="questions of one picture don't see each other, or form one dialogue"
    )
    packing: int = Field(0, ge=0, description="tokens per packed row; 0 pads instead")
    visual_tokens: Literal["all", "even"] | list[int] = Field(
        "all",
        description="visual tokens per tile, where the connector can choose: all of them; or one number drawn per forward pass, "
        "from 2, 4, 6, ... (`even`) or from a list",
    )
    told: float = Field(
        0.0, ge=0, le=1, description="share of the world's scenes that are told in words instead of shown: text-only data"
    )
    pictures: bool = Field(True, description="show the pictures; without them a model learns what the questions alone give away")
    max_tokens: int | None = Field(
        None, ge=1, description="longest dialogue (turns: conversation); of a longer one the last turns are left out, whole"
    )

    @model_validator(mode="after")
    def _dialogues(self) -> SFTOptions:
        if self.max_tokens is not None and self.turns != "conversation":
            raise ValueError("max_tokens leaves turns of a dialogue out; it goes with turns: conversation")
        return self


class SFT(Objective):
    """Answer cross-entropy for a model of the LLaVA shape (Argus's own, LLaVA)."""

    Options = SFTOptions
    options: SFTOptions

    def bind(self, model: nn.Module, processor: Any) -> None:
        super().bind(model, processor)
        given = self.options.visual_tokens
        self.counts: Sequence[int] = []
        if given != "all":
            self.counts = given if given != "even" else range(2, (processor.most_tokens or 2) + 1, 2)
            for count in self.counts:
                processor.tile_grid(count)  # refuses what the connector cannot give
        base = _base(model)
        kind = base.config.model_type
        if kind not in ("argus", "llava"):
            raise UnsupportedError(
                f"packed rows need one-dimensional positions and visual tokens in place, which '{kind}' does not have",
                hint="Train it with trl.SFTTrainer, or compose a model of its parts.",
            )
        self.encodes = isinstance(base.model.language_model, PrefixLM)
        if self.encodes and self.options.packing:
            raise UnsupportedError(
                "an encoder reads a row as one prompt, so questions cannot be packed", hint="Leave packing out."
            )
        if next(base.parameters()).device.type == "cpu":
            # The fused kernel's backward pass is slower on CPUs than plain matrix products.
            base.model.language_model.set_attn_implementation("matmul")

    def drawn(self, first: Sample) -> int | None:
        """Visual tokens per tile of a batch; a pure function of its first sample, so that a resumed stage draws the same."""
        return Random(first.id).choice(self.counts) if self.counts else None

    def drawn_or_told(self, drawing: Drawing, domain: Domain) -> Sample:
        """A drawing's questions with its pictures, or with its description; its id decides, so the share is even everywhere."""
        sample = conversation(drawing)
        if crc32(f"told {drawing.id}".encode()) / 2**32 >= self.options.told:
            return sample
        words, alone = domain.describe(drawing.scene), self.options.turns == "independent"
        messages = [in_words(m, words) if m.role == "user" and (alone or n == 0) else m for n, m in enumerate(sample.messages)]
        return replace(sample, messages=messages)

    def collate(self, items: Sequence[Item]) -> Batch:
        samples = [item if isinstance(item, Sample) else self.drawn_or_told(*item) for item in items]
        if not self.options.pictures:
            samples = [blinded(s) for s in samples]
        alone = self.options.turns == "independent"
        if alone and (self.encodes or getattr(self.processor, "depends_on_question", False)):
            samples = [one for sample in samples for one in apart(sample)]
        if (most := self.options.max_tokens) is not None:
            samples = [shortened(self.processor, s, most, self.drawn(s)) for s in samples]
        if self.encodes and not alone:
            samples = [one for sample in samples for one in answer_by_answer(sample)]
        pictures = [[load_image(p, where=s.id) for p in s.images()] for s in samples]
        flat = [p for group in pictures for p in group]
        seen = self.processor.image_processor(images=flat, return_tensors="pt") if flat else {}
        wanted = self.drawn(samples[0]) if seen else None
        told = self.told(samples, pictures) if seen and hasattr(self.processor, "reading") else {}
        sizes: list[tuple[int, ...]] = [p.size for p in flat]
        if "boxes" in told:
            counts = (told["boxes"][..., 0] >= 0).sum(1).tolist()
            sizes = [(*size, count) for size, count in zip(sizes, counts, strict=True)]
        shapes = iter(sizes)
        encoded = [
            encode(self.processor, s, alone, [next(shapes) for _ in group], wanted)
            for s, group in zip(samples, pictures, strict=True)
        ]
        batch: Batch = assemble(encoded, self.processor.tokenizer.pad_token_id, self.options.packing)
        order = batch.pop("order").tolist()
        if self.encodes:
            batch["labels"] = last_answers(batch["labels"])
        if wanted is not None:
            batch["visual_tokens"] = wanted
        if seen:
            starts = [0]
            for group in pictures:
                starts.append(starts[-1] + len(group))
            take = [k for i in order for k in range(starts[i], starts[i + 1])]
            tiles = [self.processor.arrange(*p.size).tiles for p in flat] if "image_sizes" in seen else [1] * len(flat)
            for name, per_tile in {"pixel_values": seen["pixel_values"], **told}.items():
                parts = per_tile.split(tiles)
                batch[name] = torch.cat([parts[k] for k in take])
            owners = [s.id for s, group in zip(samples, pictures, strict=True) for _ in group]
            batch.update({name: each[take] for name, each in self.per_picture(items, owners, flat).items()})
            if "image_sizes" in seen:
                batch["image_sizes"] = seen["image_sizes"][take]
        return batch

    def per_picture(self, items: Sequence[Item], owners: Sequence[str], pictures: Sequence[Image]) -> dict[str, Tensor]:
        """What else a batch holds of each picture: tensors (P, ...).

        Args:
            owners: the id of the drawing or sample that shows each.
        """
        return {}

    def told(self, samples: Sequence[Sample], pictures: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
        """What the connector reads beside the picture: instruction_ids (T, L), boxes (T, K, 4), where it does."""
        reading, flat = self.processor.reading(samples, pictures), [p for group in pictures for p in group]
        found = {}
        if "instructions" in reading:
            tiles = [sum(self.processor.arrange(*p.size).tiles for p in group) for group in pictures]
            found["instruction_ids"] = self.processor.instruction_ids(reading["instructions"]).repeat_interleave(
                torch.tensor(tiles), dim=0
            )
        if "boxes" in reading:
            found["boxes"] = self.processor.tile_boxes(reading["boxes"], flat)
        return found

    def compile(self, model: nn.Module) -> None:
        base = _base(model)
        base.model.language_model.compile()
        base.model.vision_tower.compile()

    def states(self, model: Any, batch: Batch) -> Tensor:
        """(B, S, D) output of the language model on the rows of a batch."""
        hidden: Tensor = self.run(model, batch).last_hidden_state
        return hidden

    def run(self, model: Any, batch: Batch, **asked: Any) -> Any:
        """What the model without its head gives on the rows of a batch; `asked` are its further arguments."""
        ids, sample, turn = batch["input_ids"], batch["sample"], batch["turn"]
        base = _base(model)
        device = ids.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.dtype
        sees = (
            {"attention_mask": (sample >= 0).long(), "labels": batch["labels"]}
            if self.encodes
            else {"attention_mask": bias(visible(sample, turn), dtype)}
        )
        return base.model(
            input_ids=ids,
            pixel_values=batch.get("pixel_values"),
            **{name: batch[name] for name in READ if name in batch},
            **sees,
            position_ids=batch["position_ids"],
            use_cache=False,
            **asked,
        )

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.answer_loss(model, batch, self.states(model, batch))

    def answer_loss(self, model: Any, batch: Batch, hidden: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the answers, from the states (B, S, D) of a batch's rows."""
        base = _base(model)
        rows, columns, labels = supervised(batch["labels"], batch["sample"], batch["turn"])
        logits = base.lm_head(hidden[rows, columns]).float()  # (n, V)
        loss = F.cross_entropy(logits, labels)
        right = logits.argmax(-1) == labels
        watched = [part for part in base.model.children() if isinstance(part, Backbone | Connector)]
        shown = {name: value for part in watched for name, value in part.statistics().items()}
        if "visual_tokens" in batch:  # the loss varies with their number
            shown = {**shown, "visual_tokens": loss.new_tensor(float(batch["visual_tokens"]))}
        return loss, {"token_accuracy": right.float().mean(), **shown}


def _base(model: Any) -> Any:
    """The model itself, where an adapter is wrapped around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
