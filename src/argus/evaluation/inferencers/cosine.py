"""Topics matched by embeddings: the candidate that lies nearest to the references (MVL-SIB, arXiv 2502.12852).

    candidate = argmax_c  mean_r cos(e(r), e(c))        e: a dual encoder's picture tower or text tower

References and candidates are texts or pictures, each as its sample says; where a sample names no texts for a side, that side is
its pictures, in their order. Letters and instructions play no part. This is how MTEB asks CLIP-like models with one reference;
the mean over several is the mean of unit vectors, as for prompts of zero-shot classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from argus.core.errors import UnsupportedError
from argus.core.sample import Sample
from argus.evaluation.contrastive import ContrastiveModel
from argus.evaluation.inferencers.base import Answer, Inferencer, Question
from argus.evaluation.metrics.base import NoOptions

REFERENCE_TEXTS, CANDIDATE_TEXTS = "reference_texts", "candidate_texts"  # metadata: the texts of a side; none if it is pictures


class Cosine(Inferencer):
    """Argmax of the mean cosine; the first of equal ones."""

    Options = NoOptions

    def refusal(self, sample: Sample) -> str | None:
        known = sample.metadata.keys() & {REFERENCE_TEXTS, CANDIDATE_TEXTS}
        return super().refusal(sample) or (None if known else "says not what its references and candidates are")

    @torch.inference_mode()
    def answer(self, model: Any, questions: Sequence[Question]) -> list[Answer]:
        if not isinstance(model, ContrastiveModel):
            raise UnsupportedError(
                "the inferencer 'cosine' compares embeddings, and this model has none", hint="Use inferencer: generate."
            )
        pictures: dict[int, Any] = {id(image): image for question in questions for image in question.images}
        seen = dict(zip(pictures, model.see([*pictures.values()]), strict=True)) if pictures else {}
        known = (q.sample.metadata.get(side, []) for q in questions for side in (REFERENCE_TEXTS, CANDIDATE_TEXTS))
        model.read(sorted({text for texts in known for text in texts}))
        return [self._nearest(model, question, seen) for question in questions]

    def _nearest(self, model: ContrastiveModel, question: Question, seen: dict[int, Tensor]) -> Answer:
        def side(name: str) -> Tensor:
            texts = question.sample.metadata.get(name)
            vectors = [seen[id(image)] for image in question.images] if texts is None else [model.known[text] for text in texts]
            return torch.stack(vectors)

        cosines = side(CANDIDATE_TEXTS) @ side(REFERENCE_TEXTS).mean(0)  # (candidates,)
        return Answer(question.sample.options[int(cosines.argmax())], cosines.tolist())
