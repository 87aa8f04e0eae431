"""A model and its processor, with what every way of asking needs from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from argus.core.errors import UnsupportedError
from argus.evaluation.inferencers.base import Question
from argus.evaluation.prompts import Prompt, Prompter
from argus.methods.decoding.attachment import DecodingAttachment, decoding
from argus.model.prefix_lm import PrefixLMConfig
from argus.model.processor import ArgusProcessor


class HeldModel:
    """A Hugging Face model, its processor, and what is attached to it.

    Args:
        model: any image-text-to-text or causal language model of transformers.
        processor: its processor (or tokenizer, for a model without pictures).
        attachment: what is attached to it, if anything.
        visual_tokens: visual tokens per tile to ask for, where the connector can choose.

    Raises:
        UnsupportedError: it cannot, or not so many.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, attachment: Any = None, visual_tokens: int | None = None) -> None:
        self.model, self.processor, self.attachment = model, processor, attachment
        self.asked: dict[str, Any] = {}  # what the processor is told of every question
        if visual_tokens is not None:
            if not isinstance(processor, ArgusProcessor):
                raise UnsupportedError(f"a model of type '{model.config.model_type}' has a fixed number of visual tokens")
            processor.tile_grid(visual_tokens)
            self.asked = {"visual_tokens": visual_tokens}
        self.prompter = Prompter(processor)
        self.tokenizer = self.prompter.tokenizer
        ends = model.generation_config.eos_token_id if model.generation_config else None
        self.ends = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        self.pad = next((t for t in (self.tokenizer.pad_token_id, *self.ends) if t is not None), 0)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    def head_inputs(self, questions: Sequence[Question], prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """The processor's tensors for the heads of questions, pictures included."""
        inputs = self.processor(
            text=[p.head for p in prompts],
            images=self.shown(questions),
            padding=True,
            return_tensors="pt",
            **self.told(questions),
        )
        return dict(inputs.to(self.device))

    def whole_ids(self, question: Question) -> Tensor:
        """(1, S) ids that the processor gives for a whole prompt, to check those put together from parts."""
        images = {"images": self.shown([question]), **self.told([question])} if question.images else {}
        return self.processor(text=[self.prompter.text(question)], **images, return_tensors="pt")["input_ids"]

    def shown(self, questions: Sequence[Question]) -> list[Any]:
        """The pictures as the processor wants them: by question where it counts them, else one behind the other."""
        reader = getattr(self.processor, "image_processor", None)
        counted = "batch_num_images" in (getattr(reader, "model_input_names", None) or ())
        return [q.images for q in questions] if counted else [image for q in questions for image in q.images]

    def told(self, questions: Sequence[Question]) -> dict[str, Any]:
        """What the processor is told beside pictures and text."""
        if not isinstance(self.processor, ArgusProcessor):
            return self.asked
        return {**self.asked, **self.processor.reading([q.sample for q in questions], [q.images for q in questions])}

    @property
    def decoding(self) -> DecodingAttachment | None:
        """The decoding method that is attached to the model."""
        return decoding(self.model)

    @property
    def encodes_prompts(self) -> bool:
        """Whether an encoder reads the prompt, so that the beginning of an answer is no part of it."""
        return isinstance(self.model.config.get_text_config(), PrefixLMConfig)

    @property
    def depends_on_question(self) -> bool:
        """Whether what is asked decides what is seen, so that a picture's prefix cannot serve several questions."""
        seen = getattr(self.processor, "depends_on_question", False)
        return bool(seen or self.decoding or getattr(self.attachment, "depends_on_question", False))

    def positions(self, start: int, ids: Tensor, pictures: bool = True) -> dict[str, Tensor]:
        """Position ids of text behind one prompt of `start` tokens, prefilled last.

        With mRoPE a picture takes fewer numbers than it has tokens; the model remembers how many fewer, of the last prompt with
        pictures, so it is asked for it only where this prompt has some.
        """
        numbers = start + torch.arange(ids.shape[1], device=ids.device).expand(ids.shape[0], -1)
        if pictures and not plain_positions(self.model):
            base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            numbers = numbers + base.model.rope_deltas.to(ids.device)  # (1, 1)
        return {"position_ids": numbers}


def takes_masks(model: PreTrainedModel) -> bool:
    """Whether packed trees are worth trying.

    They need causal attention over the whole past, by a kernel that takes any mask, and one position number per token.
    """
    text = model.config.get_text_config()
    if isinstance(text, PrefixLMConfig):  # its encoder sees every pair of a prompt's tokens
        return False
    layers = getattr(text, "layer_types", None) or []
    sliding = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    kernel = getattr(text, "_attn_implementation", "eager") or "eager"
    return plain_positions(model) and set(layers) <= {"full_attention"} and not sliding and kernel in ("sdpa", "eager", "matmul")


def plain_positions(model: PreTrainedModel) -> bool:
    """Whether positions are simply 0, 1, 2, ... (not rows and columns of pictures, as in mRoPE)."""
    text = model.config.get_text_config()
    rope = {**(getattr(text, "rope_scaling", None) or {}), **(getattr(text, "rope_parameters", None) or {})}
    return "mrope_section" not in rope
