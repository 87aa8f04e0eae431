"""A dual encoder (CLIP, SigLIP, Argus's own) asked like any other model: an option's score is how well its text fits the picture.

    w_o = normalise(mean_t normalise(text(template_t(o))))        s_o = exp(logit scale) * image . w_o

This is zero-shot classification with prompt ensembles (CLIP, arXiv 2103.00020; UniBench, arXiv 2408.04810): the templates come
from the instruction `statement`, and without it an option is its own text. Such a model scores and cannot write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.evaluation.inferencers.base import Answer, Question
from argus.model.dual_encoder import DualEncoder
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.image_processor import ArgusImageProcessor

SCALE = 100.0  # of models that store none
TEXTS = "statements"  # metadata: option -> its texts, as the instruction `statement` writes them


def is_contrastive(model: Any) -> bool:
    """Whether a model embeds pictures and texts side by side instead of writing."""
    return isinstance(model, DualEncoder) or (hasattr(model, "get_image_features") and hasattr(model, "get_text_features"))


class ContrastiveModel:
    """Scores options by their similarity to the picture.

    Args:
        model: a `DualEncoder`, or a CLIP-like model of transformers.
        processor: its tokenizer, or its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.tokenizer = model, getattr(processor, "tokenizer", processor)
        self.own = isinstance(model, DualEncoder)
        if self.own:
            tower = model.vision_tower
            statistics = pixel_statistics(model.config.vision_config)
            self.images: Any = ArgusImageProcessor(tower.image_size, tower.patch_size, None, *statistics)
        else:
            self.images = processor.image_processor
        self.known: dict[str, Tensor] = {}
        scale = getattr(model, "logit_scale", None)
        self.scale = float(scale.detach().exp()) if scale is not None else SCALE

    @torch.inference_mode()
    def score(self, questions: Sequence[Question], mean: bool, end: bool = True) -> list[list[float]]:
        """Similarity of each option to the question's picture, logit scale included; texts have no tokens to count.

        Raises:
            UnsupportedError: a question without exactly one picture, or with a turn that has begun.
        """
        for question in questions:
            if question.lead:
                raise UnsupportedError("a dual encoder takes no turns, so none can begin with given words")
            if len(question.images) != 1:
                raise UnsupportedError(
                    f"a dual encoder compares one picture with texts, this question shows {len(question.images)}"
                )
        places: dict[str, int] = {}
        pictures: list[Any] = []
        for question in questions:  # one embedding for all questions about a picture
            if question.group not in places:
                places[question.group] = len(pictures)
                pictures.append(question.images[0])
        seen = self.see(pictures)  # (pictures, E)
        texts = [self.texts(question, option) for question in questions for option in question.sample.options]
        self.read(sorted({text for some in texts for text in some}))
        weights = iter(texts)
        scores = []
        for question in questions:
            options = torch.stack([self.weight(next(weights)) for _ in question.sample.options])  # (options, E)
            scores.append((self.scale * options @ seen[places[question.group]]).tolist())
        return scores

    @torch.inference_mode()
    def score_pictures(self, question: Question, pictures: Sequence[Any]) -> list[float]:
        """Similarity of each picture to the question's text, logit scale included."""
        text = question.sample.messages[-1].text()
        self.read([text])
        return (self.scale * self.see(pictures) @ self.known[text]).tolist()

    def generate(self, questions: Sequence[Question], max_new_tokens: int) -> list[Answer]:
        """Refused: there is no language model.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError("a dual encoder scores texts and cannot write", hint="Use inferencer: likelihood.")

    def first_tokens(self, questions: Sequence[Question]) -> list[list[float]]:
        """Refused: there are no tokens to predict.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError("a dual encoder compares texts with a picture and cannot say yes or no")

    def texts(self, question: Question, option: str) -> list[str]:
        """The statements that stand for an option."""
        return question.sample.metadata.get(TEXTS, {}).get(option, [option])

    def weight(self, texts: Sequence[str]) -> Tensor:
        """The unit vector (E,) of an option: the mean over its statements."""
        return torch.nn.functional.normalize(torch.stack([self.known[t] for t in texts]).mean(0), dim=-1)

    def see(self, pictures: Sequence[Any]) -> Tensor:
        """Unit vectors (n, E) of pictures."""
        pixels = self.images(images=list(pictures), return_tensors="pt")["pixel_values"].to(self.model.device, self.model.dtype)
        if self.own:
            return self.model(pixels).image_embeds.float()
        return _unit(self.model.get_image_features(pixel_values=pixels))

    def read(self, texts: Sequence[str]) -> None:
        """Embed texts that are not known yet."""
        new = [t for t in texts if t not in self.known]
        if not new:
            return
        padding = "max_length" if self.model.config.model_type.startswith("siglip") else True  # SigLIP was trained that way
        inputs = self.tokenizer(new, padding=padding, truncation=True, return_tensors="pt").to(self.model.device)
        if self.own:
            found = self.model.encode_text(inputs["input_ids"], inputs["attention_mask"]).float()
        else:
            found = _unit(self.model.get_text_features(**inputs))
        self.known.update(zip(new, found, strict=True))


def _unit(found: Any) -> Tensor:
    """Unit vectors of what a CLIP-like model of transformers returns."""
    vectors = found if isinstance(found, Tensor) else found.pooler_output
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
