"""Answering by sub-questions: LVLM-eHub's multi-turn reasoning (arXiv 2306.09265, in the manner of IdealGPT, arXiv 2305.14985).

    caption       by the model
    asker         question, options, caption -> sub-questions, each on a line "Sub-question k: ..."
    the model     answers each of them, cut where it goes on with a question of its own
    reasoner      all sub-questions and answers -> "Analysis: ...", "More Likely Answer: <number>" or "not sure"

Where the reasoner is not sure the asker gets its analysis and adds sub-questions, for at most `rounds` rounds; in the last
one the reasoner has to choose. Asker and reasoner see no picture: each is a model behind an endpoint, one on this machine, or
a rule (`scripted:<rule>`, see `argus.evaluation.inferencers.partners`). Their replies are cached as judges' are, and asked
for again where they cannot be read; if the last conclusion still cannot be, the answer is the first option, and `undecided`
in the record.

The metric is accuracy, over fixed items of VCR and SNLI-VE in the paper. Four rounds are IdealGPT's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from pydantic import Field

from argus.core.errors import UnknownNameError, nearest
from argus.core.registry import Options
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Inferencer, Question
from argus.evaluation.inferencers.partners import ASKERS, REASONERS, Case
from argus.evaluation.instructions.leading import reworded
from argus.evaluation.judges.asked import SCRIPTED, Asked, Request, UnreadableError, check_reference
from argus.evaluation.judges.base import JudgeOptions, digest, read_prompt

FIELDS = ("task", "caption", "question", "options", "exchange")
NOT_SURE = 0
_SUB = re.compile(r"sub-?question\s*\d*\s*:\s*(\S.*)", re.IGNORECASE)
_ANSWER = re.compile(r"more likely answer\s*:\s*[('\"]*(not sure|\d+)", re.IGNORECASE)


class SubquestionsOptions(Options):
    """Who takes part, and for how long."""

    asker: str = Field(description="who asks: openai:<name>@<base-url>, a model that argus can load, or scripted:<rule>")
    reasoner: str = Field(description="who concludes, likewise")
    rounds: int = Field(4, ge=1, le=20, description="most rounds of sub-questions")
    caption: str = Field("Describe the picture in detail.", description="what the model is asked for a caption")
    short_answer: str = Field("Question: {question} Short answer:", pattern=r"\{question\}", description="how it is asked")
    max_new_tokens: int = Field(64, ge=1, le=4096, description="longest caption and answer of the model in tokens")
    thought: int = Field(512, ge=1, le=8192, description="longest reply of asker and reasoner in tokens")
    tries: int = Field(5, ge=1, le=20, description="most times a reply that cannot be read is asked for")
    prompt: Path | None = Field(None, description="YAML file of templates in place of the own ones")
    cache: Path | None = Field(None, description="JSONL file of replies; in the user's cache folder when not given")


class Subquestions(Inferencer):
    """Asks the model about details and concludes from its answers."""

    Options = SubquestionsOptions
    options: SubquestionsOptions

    def __init__(self, options: SubquestionsOptions) -> None:
        super().__init__(options)
        self.prompt = read_prompt(options.prompt or Path(__file__).parent / "prompts" / "subquestions.yaml", FIELDS)
        self.partners: dict[str, Asked] = {}
        for role, reference, rules in (("asker", options.asker, ASKERS), ("reasoner", options.reasoner, REASONERS)):
            rule = reference.removeprefix(SCRIPTED)
            if not reference.startswith(SCRIPTED):
                check_reference(reference)
                own = JudgeOptions.model_validate(
                    {"model": reference, "tries": options.tries, "max_new_tokens": options.thought, "cache": options.cache}
                )
                self.partners[role] = Asked(role, 1, digest(self.prompt), own)
            elif rule not in rules:
                raise UnknownNameError(f"there is no {role} by the rule '{rule}'.", hint=nearest(rule, rules))

    def refusal(self, sample: Sample) -> str | None:
        return super().refusal(sample) or (None if len(sample.options) > 1 else "has no options to conclude on")

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        captions = self._seen(model, [(question, self.options.caption) for question in questions])
        cases = [Case(q.sample.messages[-1].text(), q.sample.options, c) for q, c in zip(questions, captions, strict=True)]
        found: dict[int, Answer] = {}
        for number in range(1, self.options.rounds + 1):
            left = [i for i in range(len(cases)) if i not in found]
            if not left:
                break
            asked = self._asked([cases[i] for i in left], "ask" if number == 1 else "ask_more")
            turns = [(i, text) for i, texts in zip(left, asked, strict=True) for text in _new(texts, cases[i])]
            short = self.options.short_answer
            said = self._seen(model, [(questions[i], short.replace("{question}", text)) for i, text in turns])
            for (i, text), answer in zip(turns, said, strict=True):
                cases[i].exchange.append((text, answer.split("Question:")[0].strip()))
            last = number == self.options.rounds
            for i, chosen in zip(left, self._concluded([cases[i] for i in left], last), strict=True):
                if chosen is not None or last:
                    notes = {"rounds": number, "caption": cases[i].caption, "exchange": cases[i].exchange}
                    text = cases[i].options[(chosen or 1) - 1]
                    found[i] = Answer(text, notes={**notes, "analysis": cases[i].analysis, "undecided": chosen is None})
        return [found[i] for i in range(len(cases))]

    def _seen(self, model: AnsweringModel, turns: Sequence[tuple[Question, str]]) -> list[str]:
        """What the model says to texts about questions' pictures."""
        asked = [Question(q.group, reworded(q.sample, lambda _, text=text: text), q.images, q.shown) for q, text in turns]
        return [answer.text for answer in model.generate(asked, self.options.max_new_tokens)] if asked else []

    def _asked(self, cases: Sequence[Case], task: str) -> list[list[str]]:
        rule = ASKERS.get(self.options.asker.removeprefix(SCRIPTED))
        return [found or [] for found, _ in self._told("asker", cases, task, rule, subquestions)]

    def _concluded(self, cases: Sequence[Case], last: bool) -> list[int | None]:
        """The number of the chosen option, from 1; None where there is none yet."""
        rule = REASONERS.get(self.options.reasoner.removeprefix(SCRIPTED))

        def read(reply: str) -> int:
            chosen = conclusion(reply, max(len(case.options) for case in cases))
            if last and chosen == NOT_SURE:
                raise UnreadableError("has to choose in the last round")
            return chosen

        told = self._told("reasoner", cases, "decide" if last else "conclude", rule and (lambda case: rule(case, last)), read)
        chosen = []
        for case, (number, reply) in zip(cases, told, strict=True):
            case.analysis = reply
            chosen.append(number if number and number <= len(case.options) else None)
        return chosen

    def _told(
        self, role: str, cases: Sequence[Case], task: str, rule: Callable[[Case], str] | None, read: Callable[[str], Any]
    ) -> list[tuple[Any, str]]:
        """What a partner says of each case: (as read, None where it cannot be; the reply)."""
        if role in self.partners:
            requests = [Request(f"{task} {n}", self._messages(case, task), ()) for n, case in enumerate(cases)]
            return [(verdict.value, verdict.reply) for verdict in self.partners[role].ask(requests, read, str)]
        assert rule is not None  # looked up when this was built
        replies = [rule(case) for case in cases]
        return [(_or_none(read, reply), reply) for reply in replies]

    def _messages(self, case: Case, task: str) -> list[Message]:
        exchange = "\n".join(f"Sub-question: {question}\nAnswer: {answer}" for question, answer in case.exchange)
        more = f"\n{case.analysis}" if task == "ask_more" else ""
        user = Template(self.prompt["user"]).substitute(
            task=self.prompt[task],
            caption=case.caption,
            question=case.question,
            options="\n".join(f"{n}. {option}" for n, option in enumerate(case.options, start=1)),
            exchange=exchange + more,
        )
        system = self.prompt.get("system")
        return [*([Message("system", [TextPart(system)])] if system else []), Message("user", [TextPart(user)])]


def subquestions(reply: str) -> list[str]:
    """The sub-questions in a reply.

    Raises:
        UnreadableError: there is none.
    """
    found = [text.strip() for text in _SUB.findall(reply)]
    if not found:
        raise UnreadableError("no line begins with 'Sub-question'")
    return found


def conclusion(reply: str, count: int) -> int:
    """The chosen option's number from 1, or `NOT_SURE`.

    Raises:
        UnreadableError: neither, or a number that no option has.
    """
    found = _ANSWER.search(reply)
    if not found or (found[1].isdigit() and not 1 <= int(found[1]) <= count):
        raise UnreadableError("'More Likely Answer' is neither an option's number nor 'not sure'")
    return int(found[1]) if found[1].isdigit() else NOT_SURE


def _new(texts: Sequence[str], case: Case) -> list[str]:
    asked = {question for question, _ in case.exchange}
    return [text for text in dict.fromkeys(texts) if text not in asked]


def _or_none(read: Callable[[str], Any], reply: str) -> Any:
    try:
        return read(reply)
    except UnreadableError:
        return None
