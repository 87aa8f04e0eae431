"""ChEF's inferencers beside brute force: options in a template, thoughts first, turns that build on each other, temperatures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.desiderata import temperature
from argus.evaluation.endpoint_messages import api_messages
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.local import LocalModel

from .conftest import question

TEMPLATE = "The answer is {option}"


def brute_force(model, processor, question: Question, option: str, said: str) -> float:
    """Mean log-probability of the option's tokens behind what is said before it: one option, no batch, no padding, no cache."""
    prompt = processor.apply_chat_template(question.sample.chat(), tokenize=False, add_generation_prompt=True) + said

    def ids(text):
        return processor(text=[text], images=question.images, return_tensors="pt")

    inputs, start = ids(prompt + option), ids(prompt).input_ids.shape[1]
    with torch.no_grad():
        logp = model(**inputs).logits[0].log_softmax(-1)
    tokens = inputs.input_ids[0]
    return float(np.mean([float(logp[i - 1, tokens[i]]) for i in range(start, len(tokens))]))


@pytest.mark.parametrize("template", [TEMPLATE, "ANSWER:{option}", "{option}"])
@pytest.mark.parametrize("shares", [True, False])
def test_scores_equal_a_loop_over_options(model, processor, questions, template, shares):
    local = LocalModel(model, processor)
    local.shares = shares
    answers = build("inferencer", "ppl", {"template": template}).answer(local, questions)
    for asked, answer in zip(questions, answers, strict=True):
        # Byte tokens part where the texts part: a blank at the template's end is the option's first token.
        said = template.removesuffix("{option}").rstrip()
        blank = " " if template == TEMPLATE else ""
        options = asked.sample.options
        assert answer.scores == pytest.approx([brute_force(model, processor, asked, blank + o, said) for o in options], abs=1e-4)
        assert answer.text == options[int(np.argmax(answer.scores))]


def test_probabilities_are_a_softmax_and_sum_to_one(model, processor, questions):
    for answer in build("inferencer", "ppl").answer(LocalModel(model, processor), questions):
        weight = np.exp(answer.scores)
        assert answer.notes["probs"] == pytest.approx((weight / weight.sum()).tolist())
        assert sum(answer.notes["probs"]) == pytest.approx(1)
        assert answer.notes["prob"] == max(answer.notes["probs"])


def test_options_in_another_order_have_their_scores_in_that_order(model, processor, questions):
    ppl, local = build("inferencer", "ppl"), LocalModel(model, processor)
    turned = [replace(q, sample=replace(q.sample, options=q.sample.options[::-1])) for q in questions]
    for plain, other in zip(ppl.answer(local, questions), ppl.answer(local, turned), strict=True):
        assert other.scores == pytest.approx(plain.scores[::-1], abs=1e-4)
        assert other.text == plain.text


def test_the_sum_is_the_mean_times_the_tokens(model, processor, questions):
    local = LocalModel(model, processor)
    mean, sums = (build("inferencer", "ppl", {"template": "{option}", "normalise": n}) for n in ("mean", "sum"))
    for asked, a, b in zip(questions, mean.answer(local, questions), sums.answer(local, questions), strict=True):
        lengths = [len(option) for option in asked.sample.options]  # bytes are tokens
        assert b.scores == pytest.approx([s * n for s, n in zip(a.scores, lengths, strict=True)], abs=1e-3)


def test_an_option_without_its_closing_parenthesis_is_scored_by_its_letter(model, processor):
    """Behind a template, "(A" and "(B" differ in their last token alone."""
    asked = question(0, 0, "Which?", ("(A", "(B"))
    local = LocalModel(model, processor)
    said = replace(asked, lead="The answer is ")
    (prompt,) = local.held.prompter.prompts([said], options=True, end=False)
    first, second = prompt.options
    assert first[:-1] == second[:-1]
    assert local.held.tokenizer.decode(first) == " (A"


def test_a_template_ends_in_its_option():
    for template in ("The answer is", "{option} is the answer", "{option} or {option}"):
        with pytest.raises(RecipeError, match="once, at its end"):
            build("inferencer", "ppl", {"template": template})


def test_a_turn_that_has_begun_goes_on_from_its_words(model, processor, questions):
    """Generation behind a lead equals greedy decoding of prompt and lead."""
    asked = replace(questions[0], lead="I think")
    text = processor.apply_chat_template(asked.sample.chat(), tokenize=False, add_generation_prompt=True) + "I think"
    inputs = processor(text=[text], images=asked.images, return_tensors="pt")
    with torch.no_grad():
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=5)[0, inputs.input_ids.shape[1] :]
    (answer,) = LocalModel(model, processor).generate([asked], 5)
    assert answer.text == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_an_endpoint_refuses_to_go_on_from_words(questions):
    with pytest.raises(UnsupportedError, match="begins its turn itself"):
        api_messages(replace(questions[0], lead="The answer is"))


class Scripted:
    """A model that says what it was asked, and scores an option by whether it stands in the lead."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(self, questions, max_new_tokens):
        self.asked += [q.sample.messages[-1].text() for q in questions]
        return [Answer(f"({q.sample.messages[-1].text()}|{q.lead})", tokens=3) for q in questions]

    def score(self, questions, mean, end=True):
        self.asked += [q.sample.messages[-1].text() for q in questions]
        return [[float(option in q.lead) for option in q.sample.options] for q in questions]


def asked(text: str, options: tuple[str, ...] = ("cat", "dog"), **metadata) -> Question:
    sample = Sample(metadata.pop("id", text), [Message("user", [TextPart(text)])], options[0], list(options), metadata)
    return Question("g", sample, [])


def test_a_thought_comes_first_and_the_answer_goes_on_from_it():
    model = Scripted()
    thinking = build("inferencer", "chain_of_thought", {"then": "generate"})
    (answer,) = thinking.answer(model, [asked("What is it?")])
    assert model.asked == ["What is it?\nLet's think step by step.", "What is it?"]
    thought = "(What is it?\nLet's think step by step.|)"
    assert answer.notes["thought"] == thought
    assert answer.text == f"(What is it?|{thought}\n)"  # the second call begins with the thought
    assert answer.tokens == 6


def test_official_answers_hold_the_thought():
    (answer,) = build("inferencer", "chain_of_thought", {"then": "generate", "official": True}).answer(Scripted(), [asked("?")])
    assert answer.text == f"{answer.notes['thought']}\n{answer.notes['answer_alone']}"


def test_options_are_scored_behind_thought_and_template():
    """The script likes the option that its thought names."""
    (answer,) = build("inferencer", "chain_of_thought").answer(Scripted(), [asked("Is the dog here?")])
    assert (answer.text, answer.scores) == ("dog", [0.0, 1.0])


def test_chain_of_thought_on_a_model(model, processor, questions):
    local = LocalModel(model, processor)
    found = build("inferencer", "chain_of_thought", {"max_new_tokens": 4}).answer(local, questions[:3])
    for one, answer in zip(questions[:3], found, strict=True):
        behind = replace(one, lead=f"{answer.notes['thought']}\n")
        assert build("inferencer", "ppl").answer(local, [behind])[0].scores == pytest.approx(answer.scores, abs=1e-4)


TURNS = [
    asked("What is it?", ("animal", "plant"), id="a", item="x"),
    asked("What kind of animal is it?", ("bird", "fish"), id="b", item="x", parent="animal"),
    asked("What kind of bird is it?", ("owl", "duck"), id="c", item="x", parent="bird"),
]


class Last(Scripted):
    """Always chooses the last option."""

    def score(self, questions, mean, end=True):
        super().score(questions, mean, end)
        return [[float(n) for n in range(len(q.sample.options))] for q in questions]


def test_teacher_forcing_names_the_truth_whatever_was_said():
    model = Last()
    answers = build("inferencer", "multi_turn").answer(model, TURNS)
    assert [a.text for a in answers] == ["plant", "fish", "duck"]
    assert model.asked[-1] == "What kind of bird is it?"


def test_own_answers_are_carried_on():
    model = Last()
    build("inferencer", "multi_turn", {"parent": "own"}).answer(model, TURNS)
    assert model.asked == ["What is it?", "What kind of plant is it?", "What kind of fish is it?"]


def test_a_given_temperature_divides_scores_and_changes_no_answer(model, processor, questions):
    local = LocalModel(model, processor)
    plain = build("inferencer", "ppl").answer(local, questions)
    cooled = build("inferencer", "calibrated", {"temperature": 2.0}).answer(local, questions)
    for a, b in zip(plain, cooled, strict=True):
        weight = np.exp(np.asarray(a.scores) / 2)
        assert b.notes["probs"] == pytest.approx((weight / weight.sum()).tolist())
        assert (b.text, b.notes["temperature"]) == (a.text, 2.0)
    (one,) = build("inferencer", "calibrated", {"temperature": 1.0}).answer(local, questions[:1])
    assert one.notes["probs"] == pytest.approx(plain[0].notes["probs"], abs=1e-5)  # temperature 1 changes nothing


def test_the_temperature_is_fitted_on_questions_of_its_own(model, processor, questions):
    few = {"world/objects": {"split": "validation", "families": ["colour"], "size": 32}}
    calibrated = build("inferencer", "calibrated", {"fit": few, "samples": 12})
    local = LocalModel(model, processor)
    (answer, *_) = calibrated.answer(local, questions)
    fitting = [q for group in calibrated.questions() for q in group]
    assert len(fitting) == 12
    assert all(q.sample.id.startswith("objects/validation") or "validation" in q.sample.id for q in fitting)
    scores = [a.scores for a in build("inferencer", "ppl").answer(local, fitting)]
    places = [q.sample.options.index(q.sample.target) for q in fitting]
    assert answer.notes["temperature"] == pytest.approx(temperature(scores, places), rel=1e-3)


def test_a_temperature_needs_scores_and_a_source():
    with pytest.raises(RecipeError, match="either 'temperature' or 'fit'"):
        build("inferencer", "calibrated", {})
    with pytest.raises(UnsupportedError, match="gives none"):
        build("inferencer", "calibrated", {"of": "generate", "temperature": 2.0}).answer(Scripted(), [asked("?")])
