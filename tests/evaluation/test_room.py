"""What makes the local path fast changes no answer: room in the KV cache, ended answers no longer fed, templates written once."""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from argus.evaluation.local import LocalModel
from argus.evaluation.prompts import Prompter
from argus.evaluation.room import RoomyLayer, make_room


def fill(cache: DynamicCache, steps: list[int]) -> list[torch.Tensor]:
    """Feeds tokens step by step; a negative step cuts tokens off. Returns keys and values after each."""
    dice, seen = torch.Generator().manual_seed(0), []
    for step in steps:
        if step < 0:
            cache.crop(step)
        else:
            new = torch.randn(2, 2, 3, step, 4, generator=dice)
            for layer in range(2):
                seen += [x.clone() for x in cache.update(new[0] + layer, new[1], layer)]
    return seen


def test_a_roomy_cache_holds_what_a_plain_one_holds():
    steps = [20, 1, 1, 1, 7, -9, 1, 30, 1, -31, 2]
    plain, roomy = DynamicCache(), DynamicCache()
    expected, found = fill(plain, [5]), fill(roomy, [5])
    make_room(roomy)
    assert [type(layer) for layer in roomy.layers] == [RoomyLayer] * 2
    for a, b in zip(expected + fill(plain, steps), found + fill(roomy, steps), strict=True):
        assert torch.equal(a, b)
    assert roomy.get_seq_length() == plain.get_seq_length()


def test_steps_write_in_place_until_the_room_is_full():
    cache = DynamicCache()
    fill(cache, [40])
    make_room(cache)
    fill(cache, [1])
    room = cache.layers[0].keys.data_ptr()
    fill(cache, [1] * 15)
    assert cache.layers[0].keys.data_ptr() == room
    cache.batch_select_indices(torch.tensor([1]))  # its tensors are no views of the room any more
    before = cache.layers[0].keys.clone()
    cache.update(torch.ones(1, 3, 1, 4), torch.ones(1, 3, 1, 4), 0)
    assert torch.equal(cache.layers[0].keys[..., :-1, :], before)


def test_layers_of_a_technique_stay_as_they_are():
    class Own(DynamicLayer):
        pass

    cache = DynamicCache()
    fill(cache, [3])
    cache.layers[1] = Own()
    make_room(cache)
    assert [type(layer) for layer in cache.layers] == [RoomyLayer, Own]


def test_ended_answers_are_no_longer_fed(model, processor, questions, monkeypatch):
    """Each step feeds as many columns as the row with most unfinished answers has."""
    asked = LocalModel(model, processor)
    lengths = [a.tokens for a in asked.generate(questions, 6)]
    asked.held.ends = {
        processor.tokenizer(a.text, add_special_tokens=False).input_ids[0] for a in asked.generate(questions, 6)[:6]
    }
    lengths = [a.tokens for a in asked.generate(questions, 6)]
    assert 0 in lengths
    assert 6 in lengths  # some end at once, others never
    fed, extend = [], asked.together._extend

    def counting(prefix, **inputs):
        fed.append(inputs["input_ids"].shape[1])
        return extend(prefix, **inputs)

    monkeypatch.setattr(asked.together, "_extend", counting)
    assert [a.tokens for a in asked.generate(questions, 6)] == lengths
    rows = [lengths[:3], lengths[3:6], lengths[6:]]
    assert fed[1:] == [max(sum(length > step for length in row) for row in rows) for step in range(5)]
    alone = LocalModel(model, processor)
    alone.shares, alone.held.ends = False, asked.held.ends
    assert alone.generate(questions, 6) == asked.generate(questions, 6)


def test_templates_are_written_once_per_question(processor, questions, monkeypatch):
    plain, counted = Prompter(processor), Prompter(processor)
    plain.alike = False
    rendered = []
    render = counted._render
    monkeypatch.setattr(counted, "_render", lambda chat, **how: rendered.append(chat) or render(chat, **how))
    assert counted.prompts(questions, options=True) == plain.prompts(questions, options=True)
    options = len(questions[0].sample.options)  # the first question tries them all, to see whether they are alike
    assert len(rendered) == (1 + options) + 2 * (len(questions) - 1)


def test_a_template_that_reads_the_answer_is_asked_for_each(processor, questions, monkeypatch):
    """Such as one that writes an empty thought before an answer without one."""
    asked = Prompter(processor)
    render = asked._render

    def thoughtful(chat, **how):
        text = render(chat, **how)
        answer = chat[-1]["content"][0].get("text", "") if chat[-1]["role"] == "assistant" else ""
        return text.replace(f"<assistant>{answer}", f"<assistant>({len(answer)}){answer}") if answer else text

    monkeypatch.setattr(asked, "_render", thoughtful)
    found = asked._answered(questions[0])
    assert [text.rpartition("<assistant>")[2] for text in found] == ["(3)red", "(5)green", "(10)light blue"]
    assert asked.alike is False
