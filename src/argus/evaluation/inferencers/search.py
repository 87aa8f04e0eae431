"""Search, then answer: a search finds where to look, and another inferencer answers from that view.

    inferencer: {search: {search: {zoomeye: {smallest: 336}}, answer: likelihood}}

The model is asked about parts of the picture by the first token of yes and no. The searches of a batch run side by side, so
that their prompts are asked together, and prompts about the same part share its prefill. The record of an answer gets
`search`: cues, boxes found and visited (x, y, w, h in pixels), pops, zoom-ins, zoom-outs, number of looks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import Field

from argus.core.registry import Options, build
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.inferencers.base import Answer, AnsweringModel, Around, Question
from argus.evaluation.options import Named, named
from argus.methods.search.base import Look, Search, View, explore


class SearchOptions(Options):
    """Options of the inferencer."""

    search: Named = Field("zoomeye", description="how the view is found: a name, or {name: {options}}")
    answer: Named = Field("likelihood", description="inferencer that answers from the view")
    at_once: int = Field(64, ge=1, description="prompts about parts that are asked together")


class SearchFirst(Around):
    """Answers from the view that a search found; a question without a picture is answered as it is."""

    Options = SearchOptions
    options: SearchOptions

    def __init__(self, options: SearchOptions) -> None:
        super().__init__(options, options.answer)
        self.search: Search = build("search", *named(options.search))

    def refusal(self, sample: Sample) -> str | None:
        if len(sample.images()) > 1:
            return "shows several pictures; a search looks at one"
        searched = self.search.refusal(sample.metadata.get("cues") or None) if sample.images() else None
        return searched or super().refusal(sample)

    def answer(self, model: AnsweringModel, questions: Sequence[Question]) -> list[Answer]:
        asked = Looks(model, self.options.at_once)
        shown = [q for q in questions if q.images]
        texts = [q.sample.messages[-1].text() for q in shown]
        cues = self.search.cues(asked, texts, [q.sample.metadata.get("cues") for q in shown]) if shown else []
        searches = [
            self.search.search(q.images[0], text, some, q.group) for q, text, some in zip(shown, texts, cues, strict=True)
        ]
        found = iter(explore(asked, searches))
        ends = [next(found) if q.images else None for q in questions]
        viewed = [refocused(q, end.view) if end else q for q, end in zip(questions, ends, strict=True)]
        answers = self.inner.answer(model, viewed)
        for answer, end in zip(answers, ends, strict=True):
            if end:
                answer.notes["search"] = end.record()
        return answers


class Looks:
    """A model of the evaluation as a search sees it.

    Args:
        model: what is asked.
        at_once: most prompts per call.
    """

    def __init__(self, model: AnsweringModel, at_once: int) -> None:
        self.model, self.at_once = model, at_once

    def confidences(self, looks: Sequence[Look]) -> list[float]:
        """tanh((z_yes - z_no) / 2); log-probabilities differ by as much as logits."""
        questions = [_question(f"look {i}", look.view, look.prompt, look.words) for i, look in enumerate(looks)]
        scores = (row for some in _parts(questions, self.at_once) for row in self.model.first_tokens(some))
        return [math.tanh((yes - no) / 2) for yes, no in scores]

    def write(self, conversations: Sequence[list[Message]], max_new_tokens: int) -> list[str]:
        """The model's greedy turn behind each conversation of text."""
        questions = [Question(f"text {i}", Sample(f"text {i}", turns), []) for i, turns in enumerate(conversations)]
        return [a.text for some in _parts(questions, self.at_once) for a in self.model.generate(some, max_new_tokens)]


def refocused(question: Question, view: View) -> Question:
    """A question that shows a view in place of its picture."""
    messages = [Message(m.role, list(_replaced(m, view))) for m in question.sample.messages]
    return Question(view.name, replace(question.sample, messages=messages), list(view.images))


def _replaced(message: Message, view: View) -> Iterator[Part]:
    for part in message.content:
        if isinstance(part, ImagePart):
            yield from map(ImagePart, view.images)
            if view.prefix:
                yield TextPart(view.prefix)
        else:
            yield part


def _question(id_: str, view: View, text: str, options: Sequence[str]) -> Question:
    parts: list[Part] = [*map(ImagePart, view.images), TextPart(f"{view.prefix}{text}")]
    return Question(view.name, Sample(id_, [Message("user", parts)], None, list(options)), list(view.images))


def _parts(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    return (questions[i : i + size] for i in range(0, len(questions), size))
