"""Asking judges: nothing twice, nothing guessed, through endpoints, local models and rules."""

from __future__ import annotations

import json

import pytest

from argus.core.errors import ArgusError, DataError, UnknownNameError
from argus.core.registry import build, components
from argus.core.sample import Sample
from argus.evaluation.judges.asked import UnreadableError
from argus.evaluation.judges.base import dictionary

from .conftest import item, pictures_in, words

ANSWER = "a red ring"


def test_the_second_run_makes_no_call(server, cache):
    first = build("judge", "touchstone", {"model": server.reference}).judge([item()], [ANSWER])
    assert len(server.bodies) == 2  # both ways round
    again = build("judge", "touchstone", {"model": server.reference}).judge([item()], [ANSWER])
    assert len(server.bodies) == 2
    assert again == first
    rows = [json.loads(line) for line in (cache / "touchstone.jsonl").read_text().splitlines()]
    assert {(r["judge"], r["version"], r["model"], r["reply"]) for r in rows} == {("touchstone", 1, server.reference, "8 7")}


def test_equal_requests_of_one_call_are_asked_once(server):
    judge = build("judge", "grade", {"model": server.reference})
    server.reply = lambda body: "{'reason': 'it is', 'verdict': 'correct'}"
    assert [j.value for j in judge.judge([item(), item()], [ANSWER, ANSWER])] == [1.0, 1.0]
    assert len(server.bodies) == 1


@pytest.mark.parametrize("change", ["description", "question", "answer", "prompt", "model"])
def test_what_changes_the_request_is_asked_anew(server, tmp_path, change):
    build("judge", "touchstone", {"model": server.reference}).judge([item()], [ANSWER])
    sample, answer, options = item(), ANSWER, {"model": server.reference}
    match change:
        case "description":
            sample.metadata["description"] = "A blue ring."
        case "question":
            sample.messages[0].content[-1].text = "What colour is it?"
        case "answer":
            answer = "a blue star"
        case "prompt":
            options["prompt"] = tmp_path / "prompt.yaml"
            options["prompt"].write_text("description: $description\nuser: $shown $question $first $second\n")
        case "model":
            options["model"] = server.reference.replace("judge@", "other@")
    build("judge", "touchstone", options).judge([sample], [answer])
    assert len(server.bodies) == 4


def test_an_unreadable_reply_is_asked_for_again_and_then_an_error(server):
    server.reply = lambda body: "I cannot say." if len(server.bodies) <= 2 else "8 7"
    (found,) = build("judge", "touchstone", {"model": server.reference, "tries": 3}).judge([item()], [ANSWER])
    assert (len(server.bodies), found.value) == (4, 750)

    server.bodies.clear()
    server.reply = lambda body: "I cannot say."
    (found,) = build("judge", "touchstone", {"model": server.reference, "tries": 3}).judge([item(1)], [ANSWER])
    assert (len(server.bodies), found.value, found.label) == (6, None, None)  # 2 rounds, 3 tries each
    assert found.ratios == {"unreadable": (2.0, 2.0)}
    assert [v.reply for v in found.verdicts] == ["I cannot say."] * 2


def test_unreadable_verdicts_are_asked_for_again_only_on_request(server):
    server.reply = lambda body: "no"
    options = {"model": server.reference, "tries": 1}
    build("judge", "touchstone", options).judge([item()], [ANSWER])
    server.reply = lambda body: "8 7"
    assert build("judge", "touchstone", options).judge([item()], [ANSWER])[0].value is None
    assert len(server.bodies) == 2
    assert build("judge", "touchstone", {**options, "again": True}).judge([item()], [ANSWER])[0].value is not None
    assert len(server.bodies) == 4
    assert build("judge", "touchstone", options).judge([item()], [ANSWER])[0].value is not None  # the newer verdict counts


def test_a_reply_is_read_anew_by_another_parser(server):
    server.reply = lambda body: "8, 7"
    options = {"model": server.reference, "tries": 1}
    read = []
    for parser in ("official", "tolerant", "official"):
        (found,) = build("judge", "touchstone", {**options, "parser": parser}).judge([item()], [ANSWER])
        read.append(found.value)
    assert (read, len(server.bodies)) == ([None, 750, None], 2)


def test_what_is_too_long_for_the_judge_fails_alone(server):
    server.reply = lambda body: 400 if "number 1" in words(body) else "8 7"
    good, bad = build("judge", "touchstone", {"model": server.reference + "&concurrency=1"}).judge(
        [item(0), item(1)], [ANSWER] * 2
    )
    assert (good.value, bad.value) == (750, None)
    assert "HTTP 400" in bad.verdicts[0].error


def test_a_killed_run_goes_on_where_it_was(server, cache):
    options = {"model": server.reference}
    build("judge", "touchstone", options).judge([item(n) for n in range(4)], [ANSWER] * 4)
    file = cache / "touchstone.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]) + lines[5][:20])  # killed within the sixth line
    server.bodies.clear()
    found = build("judge", "touchstone", options).judge([item(n) for n in range(4)], [ANSWER] * 4)
    assert len(server.bodies) == 3
    assert all(j.value is not None for j in found)


def test_a_failing_call_is_an_error_of_its_round(server):
    server.reply = lambda body: 500 if "number 1" in words(body) else "8 7"
    judge = build("judge", "touchstone", {"model": server.reference + "&concurrency=1"})
    good, bad = judge.judge([item(0), item(1)], [ANSWER] * 2)
    assert good.value is not None
    assert (bad.value, bad.ratios["unreadable"]) == (None, (2.0, 2.0))
    assert "HTTP 500" in bad.verdicts[0].error


@pytest.mark.parametrize("status", [401, 500])
def test_a_judge_that_answers_nothing_stops_the_run(server, status):
    server.reply = lambda body: status
    with pytest.raises(ArgusError, match=f"HTTP {status}"):
        build("judge", "touchstone", {"model": server.reference}).judge([item()], [ANSWER])


def test_a_judge_is_checked_before_anything_runs(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'truth'"):
        build("judge", "touchstone", {"model": "scripted:truht"})
    with pytest.raises(ArgusError, match="no shipped model"):
        build("judge", "touchstone", {"model": "argus/no-such-judge"})
    with pytest.raises(ArgusError, match="openai:<name>@<base-url>"):
        build("judge", "touchstone", {"model": "openai:gpt-4"})
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("user: $question $anwser\n")
    with pytest.raises(DataError, match=r"field 'user'.*no '\$anwser'.*Did you mean 'answer'"):
        build("judge", "grade", {"model": "scripted:truth", "prompt": prompt})


def test_a_model_on_this_machine_judges(model, processor, monkeypatch):
    """A random model says nothing readable: that is counted, and it is asked once per request, since it is greedy."""
    asked = []

    def load(reference):
        asked.append(reference)
        return model, processor

    monkeypatch.setattr("argus.evaluation.judges.asked.load", load)
    judge = build("judge", "touchstone", {"model": "argus/tiny-vlm", "max_new_tokens": 3})
    found = judge.judge([item(n) for n in range(2)], [ANSWER] * 2)
    assert asked == ["argus/tiny-vlm"]
    assert [j.ratios["unreadable"] for j in found] == [(2.0, 2.0)] * 2
    seen = build("judge", "touchstone_seen", {"model": "argus/tiny-vlm", "max_new_tokens": 3})
    assert len(seen.judge([item()], [ANSWER])[0].verdicts) == 2


def test_pictures_go_out_in_order_to_judges_that_see(server):
    from argus.evaluation.endpoint_messages import api_messages
    from argus.evaluation.inferencers.base import Question

    two = item(pictures=2)
    build("judge", "touchstone_seen", {"model": server.reference}).judge([two], [ANSWER])
    assert [pictures_in(body) for body in server.bodies] == [2, 2]
    asked = api_messages(Question("q", Sample("q", two.messages), two.images()))
    sent = [p for m in server.bodies[0]["messages"] for p in m["content"] if p["type"] == "image_url"]
    assert sent == [p for p in asked[0]["content"] if p["type"] == "image_url"]


OWN = {"core_mm", "mmie", "mmie_strict"}  # judge steps and stories, which other items don't have; tested in files of their own


@pytest.mark.parametrize("name", [row.name for row in components("judge") if row.name not in OWN])
def test_every_judge_reads_what_it_would_say(name):
    """By rule the truth is worth more than half of it, half of it more than falsehoods; whoever prefers less is told so."""
    judge = build("judge", name, {"model": "scripted:truth"})
    sample = item(category="Basic Description", facts=("a red star", "a blue ring"))
    assert judge.applies(sample)
    best, half, worst = judge.judge([sample] * 3, ["a red star; a blue ring", "a red star", "green heart"])
    assert all(v.error is None for one in (best, half, worst) for v in one.verdicts)
    sign = 1 if judge.better == "higher" else -1
    if name not in ("ensemble", "grade"):  # these know two grades only
        assert sign * best.value > sign * half.value > sign * worst.value
    assert sign * best.value >= sign * worst.value
    assert not judge.applies(Sample("free", sample.messages, None))


def test_dictionaries_are_literals_and_never_run():
    assert dictionary("So it is {'a': 1,\n'b': {'c': 2}} and no more") == {"a": 1, "b": {"c": 2}}
    for text in ("", "{", "} {", "{1, 2}", "{'a': __import__('os').getcwd()}", "{'a': 'it's'}", "{" * 5000 + "}" * 5000):
        with pytest.raises(UnreadableError):
            dictionary(text)
