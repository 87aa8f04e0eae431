"""MMIE (arXiv 2410.10139) on disk: its items, and files of answers."""

from __future__ import annotations

import json

import pytest

from argus.core.images import encode_png
from argus.core.registry import build
from argus.evaluation.inferencers.base import Question
from argus.evaluation.interleaved import read
from argus.world.telling import drawn

from .conftest import picture
from .judges.stories import story


@pytest.fixture
def download(tmp_path):
    (tmp_path / "images").mkdir()
    for n in range(3):
        (tmp_path / "images" / f"{n}.png").write_bytes(encode_png(picture(n)))
    return tmp_path


def test_benchmark_items_are_read(download):
    def item(name, *reference, **changes):
        turns = [("human", [{"text": "Q", "image": "0.png"}, {"text": None, "image": "1.png"}]), ("gpt", list(reference))]
        said = [{"from": who, "content": content} for who, content in turns]
        return {"id": name, "conversations": said, "catagory": "x", "field": "art", **changes}

    items = [
        item("SA1", {"text": "r", "image": "2.png"}),
        item("XX2"),
        item("MSR3", {"text": "4", "image": None}, conversations=[]),
    ]
    items.append(item("PBL4", {"text": None, "image": "9.png"}))
    items.append(item("SA5", {"text": "r", "image": None}))
    items[-1]["conversations"] *= 2  # nothing says which of two questions is meant
    (download / "mmie.json").write_text(json.dumps(items))
    scenario = build("scenario", "mmie", {"path": download})
    *groups, aside = scenario.groups(None, 0)
    samples = [s for g in groups for s in g.samples]
    assert [(s.id, s.target, s.metadata["family"], len(s.images())) for s in samples] == [
        ("SA1", "r", "situational analysis", 2),
        ("PBL4", None, "project-based learning", 2),
    ]
    assert len(aside.errors) == 3
    found = scenario.check()
    assert (found.found["situational analysis"], sum(found.published.values()), found.bad) == (1, 20103, 3)


def test_files_of_answers_are_scored_without_a_model(download):
    rows = [
        {
            "id": "SA1",
            "question": [{"text": "Q", "image": "0.png"}],
            "answer": "plain",
            "gt_answer": [{"text": None, "image": None}],
        },
        {
            "id": "MSR2",
            "question": [{"text": "Q", "image": None}],
            "answer": [{"text": "a", "image": "1.png"}, {"text": "b", "image": "gone.png"}],
            "model": "m",
            "gt_answer": [{"text": "4", "image": None}],
        },
    ]
    path = download / "scored.json"
    path.write_text(json.dumps(rows))
    scenario = build("scenario", "mmie", {"path": path})
    samples = [s for g in scenario.groups(None, 0) for s in g.samples]
    assert [s.target for s in samples] == [None, "4"]
    given = build("inferencer", "given")
    first, second = given.answer(None, [Question("g", s, []) for s in samples])
    assert first.text == "plain"
    found = read(second.text, drawn)
    assert [part.type for part in found] == ["text", "image", "text"]  # the missing picture is left out
    assert given.refusal(story()) == "comes without an answer"
