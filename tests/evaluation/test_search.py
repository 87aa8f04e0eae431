"""The inferencer that looks for the right part of the picture first."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.registry import build
from argus.evaluation.contrastive import ContrastiveModel
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.search import Looks, SearchFirst, refocused
from argus.evaluation.local import LocalModel
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.methods.search.base import Look, View
from tests.evaluation.conftest import naive_score, picture

GIVEN = {"smallest": 24, "cues": "given", "words": ("yes", "no")}


def search(answer: str = "likelihood", **options: Any) -> SearchFirst:
    return build("inferencer", "search", {"search": {"zoomeye": {**GIVEN, **options}}, "answer": answer})


@pytest.fixture
def cued(questions):
    """The questions, each looking for a star."""
    return [replace(q, sample=replace(q.sample, metadata={**q.sample.metadata, "cues": ("star",)})) for q in questions]


def looks() -> list[Look]:
    views = [View(f"v{i}", (picture(i),)) for i in range(3)]
    return [Look(view, text, ("yes", "no")) for view in views for text in ("Is there a star?", "And a ring?")]


@pytest.mark.parametrize(("at_once", "shares"), [(1, True), (64, True), (64, False)])
def test_confidence_is_twice_the_softmax_over_yes_and_no_minus_one(model, processor, at_once, shares):
    """tanh((z_yes - z_no) / 2) = 2 sigmoid(z_yes - z_no) - 1, z from one full forward pass."""
    asked = LocalModel(model, processor)
    asked.shares = shares  # False: models that compute positions themselves (Qwen2.5-VL), question-dependent techniques
    found = Looks(asked, at_once).confidences(looks())
    for look, c in zip(looks(), found, strict=True):
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": look.prompt}]}]
        prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            logits = model(**processor(text=[prompt], images=list(look.view.images), return_tensors="pt")).logits[0, -1]
        yes, no = (float(logits[processor.tokenizer(word, add_special_tokens=False).input_ids[0]]) for word in look.words)
        assert c == pytest.approx(2 * math.exp(yes) / (math.exp(yes) + math.exp(no)) - 1, abs=1e-4)
        assert c == pytest.approx(math.tanh((yes - no) / 2), abs=1e-4)
    assert len({round(c, 4) for c in found}) == 6


def test_what_all_words_share_belongs_to_the_prompt(model, processor, questions):
    """One token per byte: behind "y", "yes" and "yonder" differ in e and o; of three words, two may not be alike."""
    asked, local = questions[0], LocalModel(model, processor)
    prompt = processor.apply_chat_template(asked.sample.chat(), tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[f"{prompt}y"], images=asked.images, return_tensors="pt")
    with torch.no_grad():
        logp = model(**inputs).logits[0, -1].log_softmax(-1)
    (found,) = local.first_tokens([replace(asked, sample=replace(asked.sample, options=["yes", "yonder"]))])
    assert found == pytest.approx([float(logp[processor.tokenizer.convert_tokens_to_ids(c)]) for c in "eo"], abs=1e-4)
    with pytest.raises(UnsupportedError, match="'yes', 'yonder', 'no' begin with the same token"):
        local.first_tokens([replace(asked, sample=replace(asked.sample, options=["yes", "yonder", "no"]))])


def test_a_confident_root_gives_the_direct_answer(model, processor, cued):
    """Threshold -1: the whole picture always answers, exactly as without a search."""
    for name in ("likelihood", "generate"):
        direct = build("inferencer", name, {}).answer(LocalModel(model, processor), cued)
        found = search(name, upper=-1.0).answer(LocalModel(model, processor), cued)
        assert [(a.text, a.scores, a.tokens) for a in found] == [(a.text, a.scores, a.tokens) for a in direct]
        assert all(a.notes["search"]["pops"] == [1] for a in found)


@pytest.mark.parametrize("views", ["local", "global_local"])
def test_options_are_scored_from_the_view_that_was_found(model, processor, cued, views):
    """Each option by one full forward pass on that view, nothing shared or cached."""
    inferencer = search(upper=0.3, lower=-1.0, views=views)
    answers = inferencer.answer(LocalModel(model, processor), cued)
    boxes = [answer.notes["search"]["boxes"] for answer in answers]
    assert any(box and box[0] != (0, 0, 32, 32) for box in boxes)
    for question, answer, found in zip(cued, answers, boxes, strict=True):
        if not found or found[0] == (0, 0, 32, 32):
            seen = question
        else:
            eye = inferencer.search.eye(question.images[0], "", question.group)
            node = next(n for n in eye.root.nodes() if n.box == found[0])
            seen = refocused(question, eye.views.of([node]))
        expected = [naive_score(model, processor, seen, option) for option in question.sample.options]
        assert answer.scores == pytest.approx(expected, abs=1e-4)
        assert answer.text == question.sample.options[expected.index(max(expected))]


def test_records_tell_the_way(model, processor):
    records = MemoryRecords()
    options = EvaluationOptions(
        scenario={"world/objects": {"size": 64, "families": ["existence", "colour", "count"], "questions": 3}},
        inferencer={"search": {"search": {"zoomeye": {**GIVEN, "smallest": 40}}}},
        metrics=["accuracy"],
        samples=6,
        blind=True,
    )
    result = evaluate(model, processor, options, run_part=records, progress=False)
    rows = {r["id"]: r for r in records.records() if r["kind"] == "answer" and not r["blind"]}
    for row in rows.values():
        if row["family"] == "count":
            assert "no cues" in row["skipped"]
        else:
            way = json.loads(json.dumps(row["search"]))
            assert way["visited"][0] == [0, 0, 64, 64]
            assert way["pops"] == [len(way["visited"])]
            assert way["looks"] >= way["pops"][0]
    assert sum("search" in row for row in rows.values()) == result.answered > 2
    asked_blind = [r for r in records.records() if r["kind"] == "answer" and r["blind"] and "answer" in r]
    assert asked_blind
    assert not any("search" in r for r in asked_blind)


def test_the_model_names_its_cues_in_words_alone(model, processor, questions):
    """A random model names none, so the whole picture answers; the prompts have no picture."""
    answers = search(cues="model").answer(LocalModel(model, processor), questions[:2])
    assert all(a.notes["search"]["cues"] == [] for a in answers)


def test_who_cannot_say_yes_or_no_is_refused(cued):
    dual = ContrastiveModel.__new__(ContrastiveModel)
    with pytest.raises(UnsupportedError, match="cannot say yes or no"):
        search().answer(dual, cued[:1])


def test_several_pictures_are_refused(cued):
    sample = replace(cued[0].sample, messages=cued[0].sample.messages * 2)
    assert "several pictures" in search().refusal(sample)


def test_bare_yes_and_no_of_yaml_are_words():
    assert search(words=[True, False]).search.options.words == ("yes", "no")
    assert search(words=["Ja", "Nein"]).search.options.words == ("Ja", "Nein")


def test_wrong_names_are_found_before_anything_runs():
    with pytest.raises(RecipeError, match="smalest"):
        build("inferencer", "search", {"search": {"zoomeye": {"smalest": 96}}})
