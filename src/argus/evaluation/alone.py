"""Asking one question at a time, for what cannot share a prefix: the plain way, which is right for every model.

A question's whole prompt is prefilled by itself, so a reduction that looks at the question sees it, and the options
follow behind its cache. Pictures are read and encoded for the model once per group, unless the connector reads the question.
Where an encoder reads the prompt, what the answer begins with (`Prompt.said`) is no part of it: it follows behind the cache, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from argus.core.errors import UnsupportedError
from argus.evaluation.held import HeldModel
from argus.evaluation.inferencers.base import Question
from argus.evaluation.prompts import Prompt

ALONG = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")  # inputs as long as the prompt
ROWS = 16  # questions that are decoded together


class Alone:
    """Scores and generates question by question."""

    def __init__(self, held: HeldModel) -> None:
        self.held, self.model = held, held.model

    def score(self, questions: Sequence[Question], prompts: Sequence[Prompt], mean: bool) -> list[list[float]]:
        """Log-probability of each option of each question."""
        scores = []
        for prompt, inputs in zip(prompts, self.inputs(questions, prompts), strict=True):
            output = self.model(**inputs, use_cache=True, logits_to_keep=1)
            begun = prompt.tail[len(prompt.tail) - self._begun(prompt) :]
            longest = len(begun) + max(map(len, prompt.options))
            rows = [begun + option + [-1] * (longest - len(begun) - len(option)) for option in prompt.options]
            target = torch.tensor(rows, device=self.held.device)  # (O, T)
            logits = output.logits[:, -1:].expand(len(rows), -1, -1)  # (O, 1, V)
            if longest > 1:
                cache, length = output.past_key_values, inputs["input_ids"].shape[1]
                cache.batch_repeat_interleave(len(rows))
                more = self.model(
                    input_ids=target[:, :-1].clamp(min=0),
                    attention_mask=target.new_ones(len(rows), length + longest - 1),
                    past_key_values=cache,
                    use_cache=True,
                    **self.held.positions(length, target[:, :-1], pictures="image_grid_thw" in inputs),
                )
                logits = torch.cat([logits, more.logits], dim=1)  # (O, T, V)
            if self.held.decoding is not None:
                logits = self.held.decoding.contrasted(logits, target[:, :-1].clamp(min=0))
            logp = logits.float().log_softmax(-1).gather(-1, target.clamp(min=0)[..., None])[..., 0]
            real = target >= 0
            real[:, : len(begun)] = False
            sums = (logp * real).sum(1)
            scores.append((sums / real.sum(1) if mean else sums).tolist())
        return scores

    def generate(self, questions: Sequence[Question], prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        """Greedy tokens of each answer, the end of the turn left out.

        Raises:
            UnsupportedError: an answer that is begun for a model whose encoder reads the prompt.
        """
        answers = []
        if any(map(self._begun, prompts)):
            raise UnsupportedError("an encoder-decoder writes its answers from the beginning, and this one is begun for it")
        for inputs in self._rows(self.inputs(questions, prompts)):
            sequences = self.model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(self.held.ends) or None,
                pad_token_id=self.held.pad,
            )
            for tokens in sequences[:, inputs["input_ids"].shape[1] :].tolist():
                end = next((i for i, token in enumerate(tokens) if token in self.held.ends), len(tokens))
                answers.append(tokens[:end])
        return answers

    def _rows(self, single: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Inputs of one question each, or of up to `ROWS` with a decoding method, which works on batches of `generate`."""
        if self.held.decoding is None:
            yield from single
            return

        def kind(inputs: dict[str, Any]) -> list[Any]:
            """What must be equal in a batch: sizes of pictures, and what the processor was told."""
            return [(k, v.shape[1:] if isinstance(v, Tensor) else v) for k, v in inputs.items() if k not in ALONG]

        for _, alike in groupby(single, kind):
            while some := list(islice(alike, ROWS)):
                longest = max(inputs["input_ids"].shape[1] for inputs in some)
                fill = {"input_ids": self.held.pad}
                padded = [
                    {k: pad(v, (longest - v.shape[1], 0), value=fill.get(k, 0)) if k in ALONG else v for k, v in inputs.items()}
                    for inputs in some
                ]
                yield {
                    k: torch.cat([inputs[k] for inputs in padded]) if isinstance(v, Tensor) else v for k, v in padded[0].items()
                }

    def _begun(self, prompt: Prompt) -> int:
        """Tokens at the end of a prompt that no encoder may read."""
        return prompt.said if self.held.encodes_prompts else 0

    def inputs(self, questions: Sequence[Question], prompts: Sequence[Prompt]) -> Iterator[dict[str, Tensor]]:
        """The inputs of each question's whole prompt; pictures are prepared once per group, where no connector reads more."""
        apart = getattr(self.held.processor, "depends_on_question", False)
        known: tuple[str, int, str] | None = None
        heads: dict[str, Tensor] = {}
        for question, prompt in zip(questions, prompts, strict=True):
            tail = torch.tensor([prompt.tail[: len(prompt.tail) - self._begun(prompt)]], device=self.held.device)
            ones, zeros = torch.ones_like(tail), torch.zeros_like(tail)
            if not prompt.head:
                yield {"input_ids": tail, "attention_mask": ones}
                continue
            key = (question.group, question.shown, prompt.head)
            if apart or known != key:
                known, heads = key, self.held.head_inputs([question], [prompt])
            more = {"input_ids": tail, "attention_mask": ones, "token_type_ids": zeros, "mm_token_type_ids": zeros}
            yield {k: torch.cat([v, more[k]], dim=1) if k in more else v for k, v in heads.items()}
