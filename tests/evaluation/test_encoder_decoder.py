"""Asking a composed model whose prompts an encoder reads: options and answers are those of transformers."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Tokenizer

from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.cost import measure
from argus.evaluation.inferencers.base import Question
from argus.evaluation.instructions.blind import Blind, BlindOptions
from argus.evaluation.local import LocalModel
from argus.evaluation.prompts import Prompter
from argus.model.compose import compose
from argus.training.rows import IGNORE
from tests.model.seq2seq import VIT, composed, saved, seq2seq

from .conftest import question


@pytest.fixture(params=["t5", "flan_t5"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, Any]:
    """A composed model, its processor, and the encoder-decoder of transformers that it was made of."""
    return *composed(tmp_path, request.param), seq2seq(request.param)


def embedded(model: Any, processor: Any, asked: Question) -> torch.Tensor:
    """(1, P, D) what the encoder reads of a question: its chat, pictures in place of their tokens."""
    text = processor.apply_chat_template(asked.sample.chat(), tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=asked.images or None, return_tensors="pt")
    embeds = model.get_input_embeddings()(inputs.input_ids)
    if asked.images:
        embeds[inputs.input_ids == processor.image_token_id] = model.get_image_features(inputs.pixel_values).flatten(0, 1)
    return embeds


@torch.no_grad()
def by_transformers(made: Any, asked: Question, option: str, said: str = "", end: bool = True) -> list[float]:
    """Log-probabilities of an option's tokens, of the end of the turn too, behind what is said before it."""
    model, processor, plain = made
    ids = processor.tokenizer(f" {said}{option}", add_special_tokens=False).input_ids
    shared = len(processor.tokenizer(f" {said}".rstrip(), add_special_tokens=False).input_ids) if said else 0
    ids += [processor.tokenizer.eos_token_id] * end
    logits = plain(inputs_embeds=embedded(model, processor, asked), labels=torch.tensor([ids])).logits
    return logits[0].log_softmax(-1)[range(len(ids)), ids].tolist()[shared:]


def blind(questions: list[Question]) -> list[Question]:
    return [Question(q.group, Blind(BlindOptions()).apply(q.sample), []) for q in questions]


@pytest.mark.parametrize("mean", [False, True])
def test_scores_of_options_are_those_of_transformers(made: Any, questions: list[Question], mean: bool) -> None:
    """With pictures and without, where the tokenizer would end the prompt once more."""
    asked = [*questions, *blind(questions)]
    for one, row in zip(asked, LocalModel(*made[:2]).score(asked, mean), strict=True):
        each = [by_transformers(made, one, option) for option in one.sample.options]
        assert row == pytest.approx([sum(e) / (len(e) if mean else 1) for e in each], abs=1e-4)


@torch.no_grad()
def test_answers_are_those_of_transformers(made: Any, questions: list[Question]) -> None:
    asked = [*questions[:4], *blind(questions[:3])]
    model, processor, plain = made
    expected = []
    for one in asked:
        embeds = embedded(model, processor, one)
        tokens = plain.generate(inputs_embeds=embeds, max_new_tokens=6, do_sample=False)[0]
        expected.append(processor.tokenizer.decode(tokens, skip_special_tokens=True).strip())
    assert [answer.text for answer in LocalModel(model, processor).generate(asked, 6)] == expected
    assert len(set(expected)) > 2


def test_what_the_answer_begins_with_is_the_decoders(made: Any, questions: list[Question]) -> None:
    """ChEF's template is said by the model, so the encoder does not read it; answers to go on from it cannot be asked for."""
    model, processor, _ = made
    found = build("inferencer", "ppl").answer(LocalModel(model, processor), questions[:3])
    for one, answer in zip(questions[:3], found, strict=True):
        each = [by_transformers(made, one, f" {o}", "The answer is", end=False) for o in one.sample.options]
        assert answer.scores == pytest.approx([sum(e) / len(e) for e in each], abs=1e-4)
    with pytest.raises(UnsupportedError, match="this one is begun for it"):
        LocalModel(model, processor).generate([replace(questions[0], lead="The answer is")], 4)


def test_first_tokens_stand_behind_what_the_options_share(made: Any) -> None:
    one = question(0, 0, "Which?", ("a1", "a2", "a3"))
    (row,) = LocalModel(*made[:2]).first_tokens([one])
    expected = [by_transformers(made, one, option, end=False)[-1] for option in one.sample.options]  # " a" stands before each
    assert row == pytest.approx(expected, abs=1e-4)


def test_a_dialogue_is_read_anew_at_every_turn(made: Any) -> None:
    """No thread is kept: what was said is read by the encoder the next time."""
    model, processor, _ = made
    local = LocalModel(model, processor)
    assert local.thread() is None
    first = question(0, 0, "Which colour?", ("red",))
    turns = [*first.sample.messages, Message("assistant", [TextPart("red")]), Message("user", [TextPart("How many?")])]
    second = replace(first, sample=Sample("p0/1", turns))
    (answer,) = local.generate([second], 5)
    tokens = made[2].generate(inputs_embeds=embedded(model, processor, second), max_new_tokens=5, do_sample=False)[0]
    assert answer.text == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_t5s_own_tokenizer_writes_one_prompt_for_learning_and_asking(tmp_path: Path) -> None:
    """It ends every text with `</s>` and has no token of a beginning; the prompt is closed once, with a picture and without."""
    words = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((c, -3.0) for c in string.ascii_letters + ":?."),
        ("▁red", -1.0),
    ]
    folder = saved(tmp_path, "flan_t5")
    T5Tokenizer(vocab=words, extra_ids=4).save_pretrained(folder)
    model, processor = compose({"language_model": folder, "encoder": {"vit": VIT}})
    objective = build("objective", "sft", {})
    objective.bind(model, processor)
    shown = question(0, 0, "red?", ("red", "no"))
    for asked in (shown, *blind([shown])):
        answered = [*asked.sample.messages, Message("assistant", [TextPart("red")])]
        batch = objective.collate([replace(asked.sample, messages=answered)])
        learned = batch["labels"][0] != IGNORE
        (prompt,) = Prompter(processor).prompts([asked], options=True)
        head = (
            processor(text=[prompt.head], images=asked.images, return_tensors="pt").input_ids[0].tolist() if prompt.head else []
        )
        assert batch["input_ids"][0, : int(learned.int().argmax())].tolist() == head + prompt.tail
        assert processor.tokenizer.convert_ids_to_tokens(prompt.tail).count("</s>") == 1
        assert [processor.tokenizer.decode(o) for o in (batch["labels"][0][learned], prompt.options[0])] == ["red</s>"] * 2


def test_costs_are_refused(made: Any, questions: list[Question]) -> None:
    with pytest.raises(UnsupportedError, match="an encoder-decoder has two stacks"):
        measure(LocalModel(*made[:2]), questions[0])
