"""Think first, then answer (ChEF's CoT inferencers, arXiv 2311.02692; the words are those of arXiv 2205.11916).

    User: <picture> question                  Assistant: thought            at most 256 tokens
          Let's think step by step.
    User: <picture> question                  Assistant: thought answer     by another inferencer, which goes on from the thought

`then: generate` writes the answer, `then: ppl` scores options behind thought and template (CoT -> PPL). The published code
stores thought and answer as one text, so that its letter extraction reads the thought too; `official: true` does so. Otherwise
the answer is what came second, and the thought stands beside it in the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from argus.core.registry import Options
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Around, Question
from argus.evaluation.instructions.leading import reworded
from argus.evaluation.options import Named


class ChainOfThoughtOptions(Options):
    """Options of the inferencer."""

    then: Named = Field("ppl", description="inferencer that answers behind the thought")
    request: str = Field(
        "Let's think step by step.", min_length=1, description="line behind the question that asks for a thought"
    )
    max_new_tokens: int = Field(256, ge=1, le=4096, description="longest thought in tokens")
    official: bool = Field(False, description="the answer is thought and answer in one text, as in the published code")


class ChainOfThought(Around):
    """Asks twice."""

    Options = ChainOfThoughtOptions
    options: ChainOfThoughtOptions

    def __init__(self, options: ChainOfThoughtOptions) -> None:
        super().__init__(options, options.then)

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        request = self.options.request
        asked = [replace(q, sample=reworded(q.sample, lambda text: f"{text}\n{request}")) for q in questions]
        thoughts = model.generate(asked, self.options.max_new_tokens)
        behind = [replace(q, lead=f"{t.text}\n" if t.text else "") for q, t in zip(questions, thoughts, strict=True)]
        answers = self.inner.answer(model, behind)
        return [self._told(thought, answer) for thought, answer in zip(thoughts, answers, strict=True)]

    def _told(self, thought: Answer, answer: Answer) -> Answer:
        text = f"{thought.text}\n{answer.text}" if self.options.official else answer.text
        notes = {**answer.notes, "thought": thought.text, "answer_alone": answer.text}
        return replace(answer, text=text, tokens=thought.tokens + answer.tokens, notes=notes)
