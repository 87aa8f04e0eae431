"""Which items of a benchmark stand in training data: the same pixels, or the same words in the question.

    pictures   SHA-256 of a picture's decoded pixels: renamed and re-packed copies are found, rescaled ones are not
    words      a run of 13 words, normalised as answers are; a shorter question counts as a whole, with its options

An item has leaked if its pictures or its words were trained on (the precautions of MME-Survey, arXiv 2411.15296; 13 words as in
GPT-3, arXiv 2005.14165). Questions from templates repeat by nature: for them look at pictures alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from argus.core.images import load_image
from argus.core.sample import Sample
from argus.evaluation.metrics.normalise import text_1

RUN = 13  # words


def picture_prints(sample: Sample) -> set[str]:
    """A fingerprint per picture."""
    decoded = (load_image(image, where=sample.id) for image in sample.images())
    return {hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest() for picture in decoded}


def word_prints(sample: Sample) -> set[str]:
    """Every run of words of the user's turns."""
    words = text_1(" ".join([*(m.text() for m in sample.messages if m.role == "user"), *sample.options])).split()
    return {" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))} - {""}


def overlap(items: Iterable[Sample], training: Iterable[Sample], *, words: bool = True) -> list[bool]:
    """Per item, whether it stands in the training data.

    Args:
        words: whether the same words are enough; otherwise only the same picture counts.
    """
    pictures: set[str] = set()
    texts: set[str] = set()
    for sample in training:
        pictures |= picture_prints(sample)
        texts |= word_prints(sample) if words else set()
    return [bool(picture_prints(item) & pictures) or bool(words and word_prints(item) & texts) for item in items]
