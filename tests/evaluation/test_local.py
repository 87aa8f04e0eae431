"""Sharing changes nothing: scores and answers equal those of separate full forward passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from argus.evaluation import together
from argus.evaluation.inferencers.base import Question
from argus.evaluation.instructions.blind import Blind, BlindOptions
from argus.evaluation.local import LocalModel
from argus.evaluation.tree import Tree, pack

from .conftest import naive_score


def without_pictures(questions: list[Question]) -> list[Question]:
    instruction = Blind(BlindOptions())
    return [Question(q.group, instruction.apply(q.sample), []) for q in questions]


def naive_answer(model, processor, question: Question, max_new_tokens: int) -> list[int]:
    """Greedy answer by one full forward pass per token."""
    text = processor.apply_chat_template(question.sample.chat(), tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=question.images or None, return_tensors="pt")
    ids, new = inputs.input_ids, []
    for _ in range(max_new_tokens):
        with torch.no_grad():
            step = model(input_ids=ids, pixel_values=inputs.get("pixel_values")).logits[:, -1].argmax(-1)
        if int(step) == processor.tokenizer.eos_token_id:
            break
        new.append(int(step))
        ids = torch.cat([ids, step[:, None]], dim=1)
    return new


@pytest.mark.parametrize("mean", [False, True])
def test_scores_equal_one_full_forward_per_option(model, processor, questions, mean):
    scores = LocalModel(model, processor).score(questions, mean)
    for question, row in zip(questions, scores, strict=True):
        expected = [naive_score(model, processor, question, option, mean) for option in question.sample.options]
        assert row == pytest.approx(expected, abs=1e-4)


def test_scores_without_pictures(model, processor, questions):
    blind = without_pictures(questions)
    for question, row in zip(blind, LocalModel(model, processor).score(blind, mean=False), strict=True):
        assert row == pytest.approx([naive_score(model, processor, question, o) for o in question.sample.options], abs=1e-4)


def test_questions_one_at_a_time_give_the_same(model, processor, questions):
    shared, alone = LocalModel(model, processor), LocalModel(model, processor)
    alone.shares = False
    mixed = [*questions, *without_pictures(questions)]
    for a, b in zip(shared.score(mixed, mean=False), alone.score(mixed, mean=False), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert shared.generate(mixed, 6) == alone.generate(mixed, 6)


def test_long_rows_are_asked_in_rounds(model, processor, questions, monkeypatch):
    whole = LocalModel(model, processor).score(questions, mean=False)
    monkeypatch.setattr(together, "ROW_TOKENS", 40)  # one question per round
    for a, b in zip(LocalModel(model, processor).score(questions, mean=False), whole, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_generate_equals_one_full_forward_per_token(model, processor, questions):
    answers = LocalModel(model, processor).generate(questions, max_new_tokens=7)
    expected = [naive_answer(model, processor, q, 7) for q in questions]
    assert [a.text for a in answers] == [processor.tokenizer.decode(e, skip_special_tokens=True).strip() for e in expected]
    assert [a.tokens for a in answers] == list(map(len, expected))
    assert len(set(map(tuple, expected))) > 3  # pictures and questions matter to this random model


@pytest.mark.parametrize("shares", [True, False])
def test_generation_stops_at_the_end_of_the_turn(model, processor, questions, shares):
    expected = [naive_answer(model, processor, q, 6) for q in questions]
    stopped = LocalModel(model, processor)
    stopped.shares = shares
    stopped.held.ends = {expected[0][2]}  # as if the third token of the first answer ended a turn
    lengths = [e.index(expected[0][2]) if expected[0][2] in e else 6 for e in expected]
    assert [a.tokens for a in stopped.generate(questions, 6)] == lengths
    assert min(lengths) < 6


def test_left_padding_equals_no_padding(model, processor, questions):
    """A batch of prompts of different length through `generate`, as a user would run it."""
    texts = [processor.apply_chat_template(q.sample.chat(), tokenize=False, add_generation_prompt=True) for q in questions]
    processor.tokenizer.padding_side = "left"
    inputs = processor(text=texts, images=[i for q in questions for i in q.images], padding=True, return_tensors="pt")
    batch = model.generate(**inputs, do_sample=False, max_new_tokens=5, eos_token_id=None)
    decoded = processor.tokenizer.batch_decode(batch[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    alone = LocalModel(model, processor)
    alone.held.ends = set()
    assert [a.text for a in alone.generate(questions, 5)] == [d.strip() for d in decoded]


def test_bigger_pictures_do_not_mix_with_smaller_ones(model, processor, questions):
    big = replace(questions[0], group="big", images=[questions[0].images[0].resize((64, 48))])
    scores = LocalModel(model, processor).score([*questions, big], mean=False)
    assert scores[-1] == pytest.approx([naive_score(model, processor, big, o) for o in big.sample.options], abs=1e-4)


def test_a_model_that_looks_ahead_is_not_shared(model, processor, questions, caplog):
    """A prefix language model: tokens of a prompt see each other in both directions; pictures see the question."""

    def look_ahead(layer, args, kwargs):
        length = args[0].shape[1]
        if kwargs["past_key_values"].get_seq_length() == 0 or kwargs["attention_mask"].shape[-1] == length:
            kwargs["attention_mask"] = torch.zeros(1, 1, length, length)
        return args, kwargs

    handle = model.get_decoder().layers[0].register_forward_pre_hook(look_ahead, with_kwargs=True)
    asked = LocalModel(model, processor)
    try:
        asked.score(questions[:2], mean=False)
    finally:
        handle.remove()
    assert not asked.shares
    assert "cannot be shared" in caplog.text


def test_sharing_is_kept_where_it_is_exact(model, processor, questions, caplog):
    asked = LocalModel(model, processor)
    asked.score(questions, mean=False)
    assert asked.shares
    assert not caplog.text


def test_packed_tokens_see_their_own_path_only():
    """Stem [5, 6] with answers [7, 8] and [9]; stem [4] with answer [3, 2]. Behind a prefix of 10 tokens."""
    packed = pack([[Tree([5, 6], [[7, 8], [9]]), Tree([4], [[3, 2]])]], prefix=10)
    # Columns: 5 | 6, 7 (its target is 8), 4, 3 (its target is 2). The last tokens 8, 9 and 2 are targets only.
    assert packed.ids.tolist() == [[5, 6, 7, 4, 3]]
    assert packed.positions.tolist() == [[10, 11, 12, 10, 11]]
    assert packed.needed == 4
    assert packed.visible[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    # (row, needed column, token, branch): 6 -> 7, 7 -> 8, 6 -> 9, 4 -> 3, 3 -> 2
    assert packed.targets.T.tolist() == [[0, 0, 7, 0], [0, 1, 8, 0], [0, 0, 9, 1], [0, 2, 3, 2], [0, 3, 2, 2]]
