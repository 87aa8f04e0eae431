"""A chain of thought graded six times."""

from __future__ import annotations

import pytest

from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.judges.asked import UnreadableError

SAMPLE = Sample("a", [Message("user", [TextPart("Which is larger?")])], "(B", ["(A", "(B"])
ANSWER = "The left one is far away. So the right one is larger. It\n(B"


def test_six_samples_of_one_request_and_their_mean(server):
    scores = iter((8, 9, 7, 10, 6, 8))
    server.reply = lambda body: f"It argues well.\n[Overall Score] {next(scores)}"
    (found,) = build("judge", "language", {"model": server.reference}).judge([SAMPLE], [ANSWER])
    assert len(server.bodies) == 6
    assert found.value == 80  # ten times the mean, 8
    assert found.ratios == {"unreadable": (0.0, 6.0)}


def test_the_judge_reads_the_thought_up_to_its_last_period_and_no_picture():
    judge = build("judge", "language", {"model": "scripted:truth"})
    requests = judge.requests(SAMPLE, ANSWER)
    text = requests[0].text()
    assert "So the right one is larger.\n" in text
    assert "larger. It" not in text
    assert all(part in text for part in ("Which is larger?", "Right option: (B", "Chosen option: (B", "about it is true"))
    assert len({request.digest() for request in requests}) == len(requests) == 6
    assert not any(request.images for request in requests)


def test_what_cannot_be_read_is_left_out_of_the_mean(server):
    server.reply = lambda body: "[Overall Score] 6" if len(server.bodies) % 2 else "Well argued."
    judge = build("judge", "language", {"model": server.reference + "&concurrency=1", "tries": 1, "times": 2})
    (found,) = judge.judge([SAMPLE], [ANSWER])
    assert (found.value, found.ratios) == (60, {"unreadable": (1.0, 2.0)})


@pytest.mark.parametrize(
    ("reply", "score"), [("[Overall Score] 7", 7), ("[Overall Score]: 7.5", 7.5), ("[overall score] 10", 10)]
)
def test_scores(reply: str, score: float):
    assert build("judge", "language", {"model": "scripted:truth"}).read(reply) == score


@pytest.mark.parametrize("reply", ["7", "[Overall Score] high", "[Overall Score] 11"])
def test_no_scores(reply: str):
    with pytest.raises(UnreadableError):
        build("judge", "language", {"model": "scripted:truth"}).read(reply)
