"""A model on this machine, asked with everything shared that can be: `generate` and `score`.

Sharing is not taken on trust: the first question is asked both ways. Where prefixes cannot be shared - attention
kernels that take no mask, position ids that a model computes itself, prompts whose tokens look ahead, a reduction
whose choice or a connector whose tokens depend on the question - each question is asked by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from argus.core.errors import ModelError, UnsupportedError
from argus.evaluation.alone import Alone
from argus.evaluation.held import HeldModel, takes_masks
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.prompts import Prompt, common
from argus.evaluation.together import Thread, Together
from argus.evaluation.tree import Tree, pack

logger = logging.getLogger(__name__)


class LocalModel:
    """Answers questions with a Hugging Face model and its processor.

    Args:
        model: any image-text-to-text or causal language model of transformers.
        processor: its processor (or tokenizer, for a model without pictures).
        attachment: what is attached to it, if anything.
        visual_tokens: visual tokens per tile to ask for, where the connector can choose.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, attachment: Any = None, visual_tokens: int | None = None) -> None:
        self.held = HeldModel(model, processor, attachment, visual_tokens)
        self.together, self.alone = Together(self.held), Alone(self.held)
        self.shares = takes_masks(model) and not self.held.depends_on_question
        self.proved = False

    @torch.inference_mode()
    def score(self, questions: Sequence[Question], mean: bool, end: bool = True) -> list[list[float]]:
        """Log-probability of each option as the model's whole turn; divided by its tokens if `mean`."""
        prompts = self.held.prompter.prompts(questions, options=True, end=end)
        return self._way(questions, prompts).score(questions, prompts, mean)

    @torch.inference_mode()
    def first_tokens(self, questions: Sequence[Question]) -> list[list[float]]:
        """Log-probability of each option's first token behind what all options share, whatever would follow it.

        Raises:
            UnsupportedError: some options, but not all, begin with the same token.
        """
        prompts = self.held.prompter.prompts(questions, options=True)
        way = self._way(questions, prompts)
        for question, prompt in zip(questions, prompts, strict=True):
            first = prompt.options[0]
            shared = min(common(first, option) for option in prompt.options[1:])
            prompt.tail, prompt.options = prompt.tail + first[:shared], [o[shared : shared + 1] for o in prompt.options]
            prompt.said += shared
            if len(set(map(tuple, prompt.options))) < len(prompt.options):
                alike = "', '".join(question.sample.options)
                raise UnsupportedError(f"some of '{alike}' begin with the same token", where=question.sample.id)
        return way.score(questions, prompts, False)

    @torch.inference_mode()
    def generate(self, questions: Sequence[Question], max_new_tokens: int) -> list[Answer]:
        """Greedy answers, in the order of the questions."""
        prompts = self.held.prompter.prompts(questions, options=False)
        tokens = self._way(questions, prompts).generate(questions, prompts, max_new_tokens)
        texts = self.held.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [Answer(text.strip(), tokens=len(t)) for text, t in zip(texts, tokens, strict=True)]

    def thread(self) -> Thread | None:
        """What is kept of a new dialogue; None where prefixes cannot be shared, not even by its turns."""
        return Thread() if self.shares else None

    @torch.inference_mode()
    def go_on(self, thread: Thread, question: Question, max_new_tokens: int) -> Answer:
        """The greedy answer to the next turn of a dialogue; only what the turns before did not feed is fed."""
        prompts = self.held.prompter.prompts([question], options=False)
        if self._way([question], prompts) is self.alone:
            return self.generate([question], max_new_tokens)[0]
        tokens = self.together.go_on(thread, question, prompts[0], max_new_tokens)
        return Answer(self.held.tokenizer.decode(tokens, skip_special_tokens=True).strip(), tokens=len(tokens))

    def _way(self, questions: Sequence[Question], prompts: Sequence[Prompt]) -> Together | Alone:
        if self.shares and not self.proved:
            shown = next((i for i, q in enumerate(questions) if q.images), 0)
            self.shares, self.proved = self._exact(questions[shown], prompts[shown]), True
        return self.together if self.shares else self.alone

    def _exact(self, question: Question, prompt: Prompt) -> bool:
        """Whether sharing gives the distribution of the first answer token that the plain way gives."""
        (inputs,) = self.alone.inputs([question], [prompt])
        if inputs["input_ids"].tolist() != self.held.whole_ids(question).tolist():
            raise ModelError("the processor tokenises the text behind a picture otherwise than text alone")
        plain = self.held.model(**inputs, logits_to_keep=1).logits[0, -1].float().log_softmax(-1)
        (prefix,) = self.together.prefixes([question], [prompt])
        packed = pack([[Tree(prompt.tail, [])]], prefix.length, self.held.device)
        shared = self.together.feed(prefix, packed)[0, -1].float().log_softmax(-1)
        gap = float((shared - plain).abs().max())
        if exact := gap < (1e-3 if self.held.model.dtype == torch.float32 else 0.5):
            return exact
        logger.warning("prefixes cannot be shared here (log-probabilities differ by %.2g): asking one by one", gap)
        return False
