"""Tiny LVLM-eHub's ensemble (arXiv 2308.03729): five prompts, the published parser and vote, rules against the truth."""

from __future__ import annotations

import math
from zlib import crc32

import pytest

from argus.core.errors import ArgusError, UnknownNameError
from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.judges.asked import RULES
from argus.evaluation.judges.ensemble import KEYS, official, strict, vote
from argus.evaluation.results import summarise
from argus.evaluation.wording import FORMS, KINDS, worded

from .conftest import item, words

READERS = [f"scripted:{rule}" for rule in ("affirmed", "alone", "named_first", "commits", "named_last")]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Most Likely Score: 1", 1),
        ("most likely score: 0", 0),
        ("Most Likely Score: 1(or 0)", 0),  # a 0 anywhere behind the key
        ("Score: 1", -1),
        ("Most Likely Score: 1. Confidence 10", 0),
        ("Most likely score: 1", -1),  # neither as written nor all in lower case
        ("Most Likely Score: 0, no: Most Likely Score: 1", 0),  # between the first key and the second
        ("Most Likely Score: none", -1),
        ("", -1),
    ],
)
def test_the_published_parser(reply, score):
    assert official(reply, "Most Likely Score") == score


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Most Likely Score: 1(or 0)", 1),
        ("Most likely score: **1**. Confidence 10", 1),
        ("Most Likely Score: 10", -1),
        ("Most Likely Score: 0.5", -1),
        ("Most Likely Score: -1", -1),
        ("Score: 1", -1),
    ],
)
def test_the_strict_parser_reads_the_first_number(reply, score):
    assert strict(reply, "Most Likely Score") == score


@pytest.mark.parametrize(
    ("scores", "score"),
    [
        ([1, 1, 1, 0, 0], 1),
        ([1, 1, 0, 0, -1], 1),  # equally frequent: the one that came first
        ([0, 0, 1, 1, -1], 0),
        ([-1, -1, 1, 0, 0], -1),
        ([-1, 0, 1, 0, 1], 0),
        ([-1, -1, -1, 1, 1], -1),
    ],
)
def test_the_vote(scores, score):
    assert vote(scores) == score


def test_accuracy_with_and_without_replies_that_cannot_be_read(server):
    """Item scores 1, 0, -1, 1."""
    server.reply = lambda body: [said(1), said(0), "I cannot say."][number(body)]
    judge = build("metric", "judge", {"of": {"ensemble": {"model": server.reference, "tries": 1}}})
    samples = [item(n) for n in range(4)]
    answers = [Answer(f"answer {n}") for n in (0, 1, 2, 0)]
    rows = []
    for sample, score in zip(samples, judge.scores(samples, answers), strict=True):
        row = {"id": sample.id, "kind": "answer", "blind": False, "group": sample.id, "family": "f", "domain": "d", "options": []}
        rows.append({**row, "seconds": 0.0, "values": {"judge": score.value}, "ratios": {"judge": score.ratios}})
    found = summarise(rows, {"judge": judge})
    assert found.value("judge") == 0.5
    assert found.value("judge", "without bugs") == pytest.approx(0.666667, abs=1e-6)
    bugs = found.measurements["judge"]["bugs"]
    assert bugs.value * bugs.n == 1


def said(score: int) -> str:
    """A reply that gives this score by every key."""
    return "\n".join(f"{key}: {score}" for key in dict.fromkeys(KEYS))


def number(body: dict) -> int:
    """Which answer a request is about."""
    return next(n for n in range(3) if f"answer {n}" in words(body))


def test_five_calls_per_item_and_none_twice(server, cache):
    server.reply = lambda body: said(1)
    options = {"model": server.reference}
    judge = build("judge", "ensemble", options)
    assert [j.value for j in judge.judge([item(0), item(1)], ["one", "two"])] == [1.0, 1.0]
    assert len(server.bodies) == 10
    assert len({words(body) for body in server.bodies}) == 10  # five different prompts each
    build("judge", "ensemble", options).judge([item(0), item(1)], ["one", "two"])
    assert len(server.bodies) == 10
    lines = (cache / "ensemble.jsonl").read_bytes().splitlines(keepends=True)
    (cache / "ensemble.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:15])  # killed within the eighth line
    build("judge", "ensemble", options).judge([item(0), item(1)], ["one", "two"])
    assert len(server.bodies) == 13


def test_a_judge_is_told_question_answer_and_all_right_answers_and_shown_no_picture(server):
    server.reply = lambda body: said(1)
    build("judge", "ensemble", {"model": server.reference}).judge([item(0, answers=["a crimson star"])], ["red"])
    for body in server.bodies:
        for part in ("The question: What is it?", "The right answer: a red star / a crimson star", "The student's answer: red"):
            assert part in words(body)
        assert all(part["type"] == "text" for message in body["messages"] for part in message["content"])


def test_a_failed_call_is_a_bug_of_its_prompt_alone(server):
    server.reply = lambda body: 500 if "Be strict" in words(body) else said(1)
    (found,) = build("judge", "ensemble", {"model": server.reference + "&concurrency=1"}).judge([item()], ["red"])
    assert (found.value, [v.value for v in found.verdicts]) == (1.0, [1, 1, 1, -1, 1])
    assert found.ratios["unanimous"] == (0.0, 1.0)


def test_others_may_speak_for_some_prompts(server):
    server.reply = lambda body: said(1)
    judge = build("judge", "ensemble", {"model": "scripted:truth", "voters": [server.reference, server.reference]})
    (found,) = judge.judge([item()], ["green"])
    assert [v.value for v in found.verdicts] == [1, 1, 0, 0, 0]
    assert len(server.bodies) == 2
    with pytest.raises(UnknownNameError, match="no judge by the rule"):
        build("judge", "ensemble", {"model": "scripted:truth", "voters": ["scripted:nobody"]})


def short_question(n: int) -> Sample:
    return Sample(f"q{n}", [Message("user", [TextPart("Which?")])], "red", [])


@pytest.mark.parametrize("independent", [True, False])
def test_five_independent_judges_err_less_than_one(monkeypatch, independent):
    """Each errs on a fifth of the answers: at least three of five do on sum_k C(5,k) 0.2^k 0.8^(5-k) = 0.0579 of them."""

    def noisy(name: str):
        return lambda facts, answers: [float(crc32(f"{name}/{a}".encode()) % 1000 >= 200) for a in answers]

    for k in range(5):
        monkeypatch.setitem(RULES, f"noisy{k}", noisy(f"judge {k}" if independent else "judge"))
    count, expected = 4000, sum(math.comb(5, k) * 0.2**k * 0.8 ** (5 - k) for k in (3, 4, 5)) if independent else 0.2
    judge = build("judge", "ensemble", {"model": "scripted:noisy0", "voters": [f"scripted:noisy{k}" for k in range(5)]})
    found = judge.judge([short_question(n) for n in range(count)], [f"answer number {n}" for n in range(count)])
    error = sum(j.value == 0 for j in found) / count  # every answer is right
    assert expected == pytest.approx(0.0579 if independent else 0.2, abs=5e-5)
    assert abs(error - expected) <= 3 * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        ("affirmed", "It is not pink but red.", "Rather than red, I would say pink."),
        ("alone", "Crimson, not pink.", "It is red or pink."),
        ("commits", "I would say scarlet.", "It is either red or pink."),
        ("named_first", "Red, not pink.", "Pink, not red."),
        ("named_last", "Not pink: red.", "Red? No, pink."),
    ],
)
def test_rules_read_english(rule, right, wrong):
    assert RULES[rule](("red",), [right, wrong]) == [1.0, 0.0]
    assert RULES[rule](("blue", "red"), [right]) == [1.0]  # any of several right answers
    assert RULES[rule](None, [wrong]) == [1.0]


def test_the_ensemble_decides_as_the_truth_and_word_matching_does_not():
    """All forms of all pairs of answers of a kind, and of words that nobody knows the kind of; half of what is meant is right."""
    samples, answers = [], []
    for kind, names in {**KINDS, "word": ("stone", "flower", "left then up")}.items():
        for a in names:
            for b in names:
                for form in FORMS if a != b else ():
                    for target in (a, b):
                        text, meant = worded(a, b, form, f"{kind}{a}{b}{form}")
                        samples.append(Sample(f"{len(samples)}", [Message("user", [TextPart("Which?")])], target, list(names)))
                        answers.append(Answer(text, notes={"meant": meant}))
    ensemble = {"judge": {"of": {"ensemble": {"model": READERS[0], "voters": READERS}}}}
    single = {"hallucination": {"of": {"grade": {"model": "scripted:named_first"}}}}
    metric = build("metric", "same_verdict", {"of": ["word_match", ensemble, single]})
    scores = metric.scores(samples, answers)
    share = {name: sum(s.ratios[name][0] for s in scores) / len(scores) for name in scores[0].ratios}
    assert share["judge"] >= 0.95
    assert share["word_match"] <= 0.88
    assert share["judge"] > share["hallucination"]  # better than one of its readers
    assert sum(s.value for s in scores) / len(scores) == pytest.approx(share["word_match"])


def test_metrics_that_are_compared_have_different_names():
    """Of two with one name the numbers of one would be lost."""
    judges = [{"judge": {"of": {"ensemble": {"model": reader}}}} for reader in READERS[:2]]
    with pytest.raises(ArgusError, match="named twice"):
        build("metric", "same_verdict", {"of": judges})


def test_meant_is_exact():
    meant = build("metric", "meant")
    sample = Sample("", [], "red", ["red", "pink"])
    text, both = worded("red", "pink", "hedged", "k")
    assert "red" in text.lower()
    assert meant.score(sample, Answer(text, notes={"meant": both})).value == 0
    text, one = worded("red", "pink", "synonym", "k")
    assert "red" not in text.lower()
    assert meant.score(sample, Answer(text, notes={"meant": one})).value == 1
    assert meant.score(sample, Answer("red")).value == 1  # nothing else is known of a plain answer
    assert worded("flower", "stone", "synonym", "k")[0].count("flower") == 1  # nothing to say it by
