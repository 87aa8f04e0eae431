"""Asking with everything shared: each picture is prefilled once, its questions and options follow as packed trees.

Pictures of one batch are prefilled together. Prefixes of equal length make a bucket, so nothing is padded in front;
what hangs on them is packed behind their KV cache (`argus.evaluation.tree`), which is cut back afterwards.

A dialogue goes on behind what is cached of it (`Thread`): of each turn only the tokens are fed that were not in the prompt
before it, the last answer and the new question. A turn that shows a new picture begins a new prefix, because pictures are part
of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from argus.evaluation.held import HeldModel
from argus.evaluation.inferencers.base import Question
from argus.evaluation.prompts import Prompt, common
from argus.evaluation.room import make_room
from argus.evaluation.tree import Packed, Tree, additive, branch_scores, pack

ROW_TOKENS = 1024  # longest packed row; longer ones are asked in rounds, as attention grows with the square


@dataclass(slots=True)
class Prefix:
    """Rows of one prefill: their cache, their length, and which questions hang on each row."""

    cache: Any
    length: int
    rows: list[list[int]]


@dataclass(slots=True)
class Thread:
    """What is cached of a dialogue.

    Args:
        head: the text up to the last picture.
        tail: tokens behind it that are in the cache.
        prefix: the cache; its length counts both.
    """

    head: str = ""
    tail: list[int] = field(default_factory=list)
    prefix: Prefix | None = None


class Together:
    """Scores and generates for all questions of a batch behind shared prefixes."""

    def __init__(self, held: HeldModel) -> None:
        self.held, self.model = held, held.model

    def score(self, questions: Sequence[Question], prompts: Sequence[Prompt], mean: bool) -> list[list[float]]:
        """Log-probability of each option of each question."""
        scores: list[list[float]] = [[] for _ in questions]
        trees = [Tree(p.tail, p.options) for p in prompts]
        for prefix in self.prefixes(questions, prompts):
            for row in rounds(prefix.rows, trees):
                packed = pack([[trees[i] for i in members] for members in row], prefix.length, self.held.device)
                logits = self.feed(prefix, packed)
                prefix.cache.crop(-packed.ids.shape[1])
                sums, counts = branch_scores(logits, packed)
                values = iter((sums / counts if mean else sums).tolist())
                for i in (i for members in row for i in members):
                    scores[i] = [next(values) for _ in prompts[i].options]
        return scores

    def generate(self, questions: Sequence[Question], prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        """Greedy tokens of each answer, the end of the turn left out."""
        tokens: list[list[int]] = [[] for _ in questions]
        trees = [Tree(p.tail, []) for p in prompts]
        for prefix in self.prefixes(questions, prompts):
            for row in rounds(prefix.rows, trees):
                self._decode(prefix, row, trees, max_new_tokens, tokens)
        return tokens

    def go_on(self, thread: Thread, question: Question, prompt: Prompt, max_new_tokens: int) -> list[int]:
        """Greedy tokens of the answer to the next turn of a dialogue, of which the thread then holds all but the answer."""
        if thread.prefix is None or thread.head != prompt.head:
            (thread.prefix,) = self.prefixes([question], [prompt])
            thread.head, thread.tail = prompt.head, []
        prefix, known = thread.prefix, min(common(thread.tail, prompt.tail), len(prompt.tail) - 1)
        if forgotten := len(thread.tail) - known:
            prefix.cache.crop(-forgotten)
            prefix.length -= forgotten
        if fresh := prompt.tail[known:-1]:
            self.feed(prefix, pack([[Tree(fresh, [])]], prefix.length, self.held.device))
            prefix.length += len(fresh)
        thread.tail = prompt.tail[:-1]
        tokens: list[list[int]] = [[]]
        self._decode(prefix, [[0]], [Tree(prompt.tail[-1:], [])], max_new_tokens, tokens)
        return tokens[0]

    def prefixes(self, questions: Sequence[Question], prompts: Sequence[Prompt]) -> Iterator[Prefix]:
        """Prefilled prefixes that together carry every question once."""
        rows: dict[tuple[str, int, str], list[int]] = {}
        for i, (question, prompt) in enumerate(zip(questions, prompts, strict=True)):
            rows.setdefault((question.group, question.shown, prompt.head), []).append(i)
        buckets: dict[Any, list[list[int]]] = {}
        for (_, _, head), members in rows.items():
            # Pictures of one size become equally many tokens.
            sizes = tuple(image.size for image in questions[members[0]].images)
            buckets.setdefault((head, sizes), []).append(members)
        for (head, _), bucket in buckets.items():
            if not head:
                yield Prefix(None, 0, bucket)
                continue
            inputs = self._heads(bucket, questions, prompts)
            if inputs["attention_mask"].all():
                yield self._prefill(inputs, bucket)
            else:  # the processor cut pictures of one size differently after all
                for members in bucket:
                    yield self._prefill(self._heads([members], questions, prompts), [members])

    def feed(self, prefix: Prefix, packed: Packed) -> Tensor:
        """Logits (R, needed, V) of packed trees behind a prefix, whose cache then holds them too."""
        return self._extend(
            prefix,
            input_ids=packed.ids,
            attention_mask=packed.mask(prefix.length, self.model.dtype),
            position_ids=packed.positions,
            logits_to_keep=packed.needed,
        )

    def _heads(self, bucket: list[list[int]], questions: Sequence[Question], prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        firsts = [members[0] for members in bucket]
        return self.held.head_inputs([questions[i] for i in firsts], [prompts[i] for i in firsts])

    def _prefill(self, inputs: dict[str, Tensor], bucket: list[list[int]]) -> Prefix:
        output = self.model(**inputs, use_cache=True, logits_to_keep=1)
        return Prefix(output.past_key_values, inputs["input_ids"].shape[1], bucket)

    def _extend(self, prefix: Prefix, **inputs: Any) -> Tensor:
        output = self.model(past_key_values=prefix.cache, use_cache=True, **inputs)
        prefix.cache = output.past_key_values
        return output.logits

    def _decode(self, prefix: Prefix, row: list[list[int]], trees: Sequence[Tree], limit: int, tokens: list[list[int]]) -> None:
        """Decodes all questions of a round side by side: each step feeds one token per question."""
        device, dtype = self.held.device, self.model.dtype
        packed = pack([[trees[i] for i in members] for members in row], prefix.length, device)
        # (R, S, V), one column per question: a tree without branches needs its stem's end only.
        logits = self.feed(prefix, packed)
        make_room(prefix.cache)
        owner = packed.tree  # (R, T) whose token each cached one behind the prefix is
        stream = packed.tree[:, -packed.needed :]  # (R, S); -1 where a row has fewer questions
        position = packed.positions[:, -packed.needed :]
        alive = stream >= 0
        ends = torch.tensor(sorted(self.held.ends), device=device, dtype=torch.long)
        for step in range(limit):
            token = logits.argmax(-1)  # (R, S)
            alive &= ~torch.isin(token, ends)
            for r, s, t in zip(alive.nonzero()[:, 0].tolist(), stream[alive].tolist(), token[alive].tolist(), strict=True):
                tokens[row[r][s]].append(t)
            if step + 1 == limit or not alive.any():
                break
            if (most := int(alive.sum(1).max())) < alive.shape[1]:  # answers that ended are fed no longer
                left = alive.int().argsort(dim=1, descending=True, stable=True)[:, :most]
                token, stream, position, alive = (x.gather(1, left) for x in (token, stream, position, alive))
            position = position + 1
            owner = torch.cat([owner, stream], dim=1)
            seen = owner[:, None, :] == stream[:, :, None]  # (R, S, T + what was fed)
            mask = additive(torch.nn.functional.pad(seen, (prefix.length, 0), value=True), dtype)
            logits = self._extend(prefix, input_ids=token, attention_mask=mask, position_ids=position)
        prefix.cache.crop(-owner.shape[1])


def rounds(rows: Sequence[Sequence[int]], trees: Sequence[Tree]) -> list[list[list[int]]]:
    """Splits each row's questions so that no packed row exceeds `ROW_TOKENS` (unless one question does)."""
    split: list[list[list[int]]] = []
    for row in rows:
        parts: list[list[int]] = [[]]
        size = 0
        for i in row:
            if parts[-1] and size + trees[i].size() > ROW_TOKENS:
                parts.append([])
                size = 0
            parts[-1].append(i)
            size += trees[i].size()
        split.append(parts)
    count = max(map(len, split))
    return [[parts[k] if k < len(parts) else [] for parts in split] for k in range(count)]
