"""Asking again where no answer was given: the second turn of CORE-MM (arXiv 2311.11567).

    turn 1    question                                    -> response
    turn 2    question, response, "explain your steps"    -> steps        only if the response holds no final answer

Both turns are judged together, first one first; the record's `turns` says how many there were. The answer is extracted by
`final-answer-1`. What answers is another inferencer, so that a prompt for reasoning, a search or any other one can stand
there; each question without an answer costs it one more turn and no more. The wording of the second turn is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.final_answer import final_answer_1
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Around, Question
from argus.evaluation.options import Named


class StepsOptions(Options):
    """Who answers, and what is said where there is no answer."""

    of: Named = Field("generate", description="inferencer that answers both turns")
    ask: str = Field(
        "Explain your reasoning step by step, then give the final answer behind the word Answer.",
        min_length=1,
        description="the second turn",
    )


class Steps(Around):
    """One turn, or two."""

    Options = StepsOptions
    options: StepsOptions

    def __init__(self, options: StepsOptions) -> None:
        super().__init__(options, options.of)

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        found = [replace(answer, notes={**answer.notes, "turns": 1}) for answer in self.inner.answer(model, questions)]
        open_ = [i for i, answer in enumerate(found) if not answer.skipped and final_answer_1(answer.text) is None]
        asked = [replace(questions[i], sample=self.again(questions[i].sample, found[i].text)) for i in open_]
        for i, more in zip(open_, self.inner.answer(model, asked) if asked else [], strict=True):
            text = f"{found[i].text}\n{more.text}".strip()
            found[i] = replace(
                more, text=text, tokens=found[i].tokens + more.tokens, notes={**found[i].notes, **more.notes, "turns": 2}
            )
        return found

    def again(self, sample: Sample, said: str) -> Sample:
        """The question behind which its steps are asked for."""
        turns = [Message("assistant", [TextPart(said)]), Message("user", [TextPart(self.options.ask)])]
        return replace(sample, messages=[*sample.messages, *turns])
