"""Conversations become turns: what is asked together, what apart, and which tokens are answers.

The spans come from the chat template itself: the prompt up to the generation marker is encoded, and what follows is the answer.

    independent    [ system, pictures | question 1, answer 1 | question 2, answer 2 | ... ]    each question as if asked alone
    conversation   [ system, question 1, answer 1, question 2, answer 2, ... ]                 later turns see earlier ones

Up to the last visual token all turns share a prefix (see `argus.training.rows`). Where a picture's visual tokens depend on the
question, and where an encoder reads what stands before an answer, nothing can be shared: `apart` and `answer_by_answer` make
samples of their own of a sample's questions and answers.

Shapes: ids and labels are lists of one conversation's tokens, in which a picture's placeholders stand already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from argus.core.errors import DataError, UnsupportedError
from argus.core.images import load_image
from argus.core.sample import ImagePart, Message, Sample
from argus.training.rows import IGNORE, Encoded
from argus.world.data import DEMONSTRATED


def encode(
    processor: Any,
    sample: Sample,
    independent: bool,
    sizes: Sequence[tuple[int, ...]] | None = None,
    visual_tokens: int | None = None,
) -> Encoded:
    """Token ids of one conversation with `<image>` expanded.

    Args:
        processor: the model's processor, which has the chat template and knows how many tokens a picture becomes.
        independent: its questions don't see each other.
        sizes: width and height of its pictures, and how many boxes each has, where their number of tokens depends on them.
        visual_tokens: visual tokens per tile, where that is not all of them.

    Raises:
        DataError: no assistant turn, so nothing to learn.
    """
    if all(m.role != "assistant" for m in sample.messages):
        raise DataError("no assistant turn, so nothing to learn", where=str(sample.metadata.get("source", sample.id)))
    dialogues = [sample.messages]
    if independent:
        system, pairs = _split(sample)
        dialogues = [system + pair for pair in pairs]
    ids, labels = zip(*(dialogue_ids(processor, one, sizes, visual_tokens) for one in dialogues), strict=True)
    if getattr(processor, "fusion", "decoder") == "decoder":
        shared = _shared_prefix(ids, _last(ids[0], processor.image_token_id))
    else:
        shared = _shared_prefix(ids, processor.picture_end(ids[0], sizes or (), visual_tokens))
    return Encoded(
        prefix=ids[0][:shared],
        turns=[i[shared:] for i in ids],
        labels=[m[shared:] for m in labels],
        # Answers in front of a later picture are learned like others, unless they are there to be learned from.
        prefix_labels=None if sample.metadata.get(DEMONSTRATED) else labels[0][:shared],
        independent=independent,
    )


def dialogue_ids(
    processor: Any, messages: Sequence[Message], sizes: Sequence[tuple[int, ...]] | None = None, visual_tokens: int | None = None
) -> tuple[list[int], list[int]]:
    """Ids of a dialogue and its labels: the ids inside assistant turns, `IGNORE` elsewhere.

    Args:
        processor, sizes, visual_tokens: see `encode`.
    """
    shown = iter(sizes or ())
    chat = Sample("", list(messages)).chat()
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for end in [i for i, m in enumerate(messages, start=1) if m.role == "assistant"]:
        prompt = processor.apply_chat_template(chat[: end - 1], tokenize=False, add_generation_prompt=True)
        whole = processor.apply_chat_template(chat[:end], tokenize=False)
        if not prompt.startswith(done) or not whole.startswith(prompt):
            raise UnsupportedError("the chat template rewrites earlier turns, so answer spans are not defined")
        asked = _tokens(processor, prompt[len(done) :], shown, visual_tokens)
        told = _tokens(processor, whole[len(prompt) :], shown, visual_tokens)
        ids += asked + told
        labels += [IGNORE] * len(asked) + told
        done = whole
    return ids, labels


def shortened(processor: Any, sample: Sample, most: int, visual_tokens: int | None = None) -> Sample:
    """As many whole turns of a dialogue, from its beginning, as `most` tokens hold.

    Raises:
        DataError: not even the first one.
    """
    sizes = [load_image(p, where=sample.id).size for p in sample.images()]
    _, labels = dialogue_ids(processor, sample.messages, sizes, visual_tokens)
    ends = [i for i, (a, b) in enumerate(pairwise([*labels, IGNORE]), start=1) if a != IGNORE and b == IGNORE]
    answers = [i for i, m in enumerate(sample.messages, start=1) if m.role == "assistant"]
    kept = [message for message, end in zip(answers, ends, strict=True) if end <= most]
    if not kept:
        source = str(sample.metadata.get("source", sample.id))
        raise DataError(f"the first turn has {ends[0]} tokens, more than max_tokens {most}", where=source)
    return replace(sample, messages=sample.messages[: kept[-1]])


def blinded(sample: Sample) -> Sample:
    """The sample without its pictures."""
    return replace(
        sample, messages=[Message(m.role, [p for p in m.content if not isinstance(p, ImagePart)]) for m in sample.messages]
    )


def apart(sample: Sample) -> list[Sample]:
    """The questions of a sample as samples of their own, each with the pictures and its own boxes."""
    prefix, dialogues = _split(sample)
    boxes = sample.metadata.get("question_boxes", [])
    return [
        replace(sample, messages=prefix + pair, metadata={**sample.metadata, **({"boxes": boxes[n]} if boxes else {})})
        for n, pair in enumerate(dialogues)
    ]


def answer_by_answer(sample: Sample) -> list[Sample]:
    """A dialogue as one sample per answer, each with all turns before it; demonstrations are read alone."""
    ends = [i for i, m in enumerate(sample.messages, start=1) if m.role == "assistant"]
    if sample.metadata.get(DEMONSTRATED):
        pictures = [i for i, m in enumerate(sample.messages) if any(isinstance(p, ImagePart) for p in m.content)]
        ends = [end for end in ends if end > max(pictures, default=0)]
    return [replace(sample, messages=sample.messages[:end]) for end in ends]


def last_answers(labels: Tensor) -> Tensor:
    """Labels (B, S) of the last answer of each row; earlier ones are read."""
    learned = labels != IGNORE
    begins = learned & ~F.pad(learned, (1, 0))[:, :-1]
    column = torch.arange(labels.shape[1], device=labels.device)
    last = (begins * column).amax(1, keepdim=True)  # (B, 1)
    return labels.masked_fill(column < last, IGNORE)


def _tokens(processor: Any, text: str, shown: Iterator[tuple[int, ...]], visual_tokens: int | None) -> list[int]:
    """Ids of a piece of a rendered conversation, each image token replaced by what the next picture shown becomes."""
    image = processor.image_token_id
    flat: list[int] = []
    for token in processor.tokenizer(text, add_special_tokens=False).input_ids:
        size: Any = next(shown, (None, None)) if token == image else None
        flat.extend(processor.picture_ids(*size[:2], visual_tokens, *size[2:]) if size else [token])
    return flat


def _split(sample: Sample) -> tuple[list[Message], list[list[Message]]]:
    """What all questions share (system turn, pictures) and the question-answer pairs."""
    messages = sample.messages
    system = [m for m in messages if m.role == "system"]
    rest = [m for m in messages if m.role != "system"]
    if len(rest) % 2 or any(m.role != ("user", "assistant")[i % 2] for i, m in enumerate(rest)):
        raise DataError("turns must alternate user, assistant", where=str(sample.metadata.get("source", sample.id)))
    shown = [p for p in rest[0].content if isinstance(p, ImagePart)]
    pairs = []
    for user, assistant in zip(rest[::2], rest[1::2], strict=True):
        if user is not rest[0] and any(isinstance(p, ImagePart) for p in user.content):
            raise UnsupportedError("independent turns share the pictures of the first turn; use turns: conversation")
        asked = [p for p in user.content if not isinstance(p, ImagePart)]
        pairs.append([Message("user", [*shown, *asked]), assistant])
    return system, pairs


def _last(ids: Sequence[int], image: int) -> int:
    """Tokens up to the last visual one."""
    return max((i + 1 for i, token in enumerate(ids) if token == image), default=0)


def _shared_prefix(ids: Sequence[Sequence[int]], length: int) -> int:
    """The `length` first tokens, up to the last of a picture: what all turns share."""
    first = ids[0]
    if any(list(other[:length]) != list(first[:length]) for other in ids[1:]):
        raise UnsupportedError("the chat template writes pictures differently in different turns")
    return length
