"""Questions as tokens: the head that all questions about a picture share, the tail of each, and its candidate answers.

    USER: <image>            | Which colour is the star? ASSISTANT: | red</s>
    head, up to the picture  | tail                                 | option, with the end of the turn

The picture's token cuts the text: tokenisers never merge across an added token, so the parts can be tokenised apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from argus.core.errors import ModelError
from argus.evaluation.inferencers.base import Question
from argus.model.chat import CHAT_TEMPLATE
from argus.model.processor import ArgusProcessor


@dataclass(slots=True)
class Prompt:
    """One question in tokens.

    Args:
        head: text up to and including the last picture's placeholder; empty without pictures.
        tail: token ids behind the head, to the point where the model answers.
        options: token ids of each candidate answer, as a rule its end of turn included.
        said: how many tokens at the end of the tail are the beginning of the answer, in front of all candidates.
    """

    head: str
    tail: list[int]
    options: list[list[int]]
    said: int = 0


class Prompter:
    """Writes questions with a processor's chat template and tokenises them."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.image_token: str | None = getattr(processor, "image_token", None)
        # A language model that never met a chat has no template; it is asked the way composed models are.
        self.template: str | None = None if getattr(processor, "chat_template", None) else CHAT_TEMPLATE
        self.alike: bool | None = None  # whether the template writes the same before any answer; found out on the first question

    def text(self, question: Question) -> str:
        """The prompt as text, one placeholder per picture, ready for the model's turn, or for the rest of it behind its lead."""
        if lead := question.lead.strip():
            return self._before(question, lead) + lead
        return self._render(question.sample.chat(), add_generation_prompt=True)

    def _render(self, chat: list[dict[str, Any]], **how: Any) -> str:
        template = {"chat_template": self.template} if self.template else {}
        return self.processor.apply_chat_template(chat, tokenize=False, **template, **how)

    def prompts(self, questions: Sequence[Question], options: bool, end: bool = True) -> list[Prompt]:
        """All questions in tokens; with their candidate answers if `options`, each with the end of its turn if `end`."""
        heads: list[str] = []
        texts: list[str] = []
        spans: list[tuple[int, int]] = []
        for question in questions:
            text = self.text(question)
            head = self._head(text, question)
            full = self._answered(question) if options else []
            for answered in full:
                if not answered.startswith(head):
                    raise ModelError("the chat template rewrites the prompt once it is answered", where=question.sample.id)
            spans.append((len(texts), len(texts) + 1 + len(full)))
            texts += [t[len(head) :] for t in (text, *full)]
            heads.append(head)
        rows = self._tokenise(texts, [h for h, (a, b) in zip(heads, spans, strict=True) for _ in range(b - a)])
        found = [self._prompt(h, rows[a], rows[a + 1 : b], end) for h, (a, b) in zip(heads, spans, strict=True)]
        for question, prompt in zip(questions, found, strict=True):
            if question.lead.strip():
                asked = self._render(question.sample.chat(), add_generation_prompt=True)[len(prompt.head) :]
                prompt.said = len(prompt.tail) - common(prompt.tail, self._tokenise([asked], [prompt.head])[0])
        return found

    def _head(self, text: str, question: Question) -> str:
        found = text.count(self.image_token) if self.image_token else 0
        if found != len(question.images):
            raise ModelError(
                f"the prompt shows {found} pictures, but the question has {len(question.images)}",
                where=question.sample.id,
            )
        return text[: text.rindex(self.image_token) + len(self.image_token)] if self.image_token and found else ""

    def _answered(self, question: Question) -> list[str]:
        """The prompt with each answer as text, cut behind the answer: templates differ in what they put there.

        What stands before an answer is written once per question, unless the first question shows that it depends on the answer.
        """
        options = [f"{question.lead}{option}".strip() for option in question.sample.options]
        each = options if self.alike is not True else options[:1]
        befores = [self._before(question, option) for option in each]
        if self.alike is None and len(options) > 1:
            self.alike = len(set(befores)) == 1
        return [
            before + option for before, option in zip(befores if len(each) > 1 else befores * len(options), options, strict=True)
        ]

    def _before(self, question: Question, option: str) -> str:
        """What the chat template writes before an answer."""
        turn = {"role": "assistant", "content": [{"type": "text", "text": option}]}
        text = self._render([*question.sample.chat(), turn])
        return text[: text.rindex(option)]

    def _tokenise(self, texts: list[str], heads: list[str]) -> list[list[int]]:
        """Token ids of texts, each as it reads behind its head."""
        joined = [f"{self.image_token}{text}" if head else text for text, head in zip(texts, heads, strict=True)]
        seen = [bool(h) for h in heads]
        ids: list[list[int]] = [[] for _ in texts]
        for behind in (True, False):
            which = [i for i, s in enumerate(seen) if s == behind]
            if which:
                # Text behind a picture continues; text without one begins, so it gets the tokenizer's first token, unless the
                # template writes that, as those of composed models do.
                begins = not behind and not isinstance(self.processor, ArgusProcessor)
                rows = self.tokenizer([joined[i] for i in which], add_special_tokens=begins).input_ids
                for i, row in zip(which, rows, strict=True):
                    ids[i] = row[1:] if behind else row
        return ids

    def _prompt(self, head: str, prompt: list[int], answered: list[list[int]], end: bool) -> Prompt:
        """Splits where the first answer departs from the prompt: merges across the boundary belong to the answers."""
        cut = min((common(prompt, a) for a in answered), default=len(prompt))
        stop = self.tokenizer.eos_token_id
        options = [a[cut:] + ([] if stop is None or not end else [stop]) for a in answered]
        return Prompt(head, prompt[:cut], options)


def common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
