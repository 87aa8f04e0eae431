"""MMDU (arXiv 2406.11833): its means, its dialogues, its twin in the world."""

from __future__ import annotations

import base64
import json
from collections import Counter

import pytest

from argus.core.errors import DataError
from argus.core.images import encode_png
from argus.core.registry import build
from argus.core.sample import ImagePart
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.engine import evaluate
from argus.evaluation.judges.asked import UnreadableError, Verdict
from argus.evaluation.judges.mmdu import OVERALL, QUALITIES
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.results import summarise
from argus.evaluation.scenarios.mmdu import MARKER, dialogue

from ..conftest import picture
from .conftest import item, pictures_in, words

# File 1: [5,6,7,8,6,5|6] and [3,4,5,6,4,3|4]; file 2: [9 x 6|9] and a turn with the first five qualities only, all 1.
GOLDEN = ([5, 6, 7, 8, 6, 5, 6], [3, 4, 5, 6, 4, 3, 4], [9] * 7, [1] * 5)
NO_OVERALL = [2] * 6


def numbers(turns, mode):
    """The measured numbers of turns with these scores, read from a judge's replies."""
    metric = build("metric", "judge", {"of": {"mmdu": {"model": "scripted:exact", "mode": mode}}})
    (judge,) = metric.judges
    rows = []
    for n, scores in enumerate(turns):
        reply = f"So be it. {dict(zip((*QUALITIES, OVERALL), scores, strict=False))}"
        try:
            value, error = judge.read(reply), None
        except UnreadableError as unreadable:
            value, error = None, str(unreadable)
        found = judge.judgement(item(n), [Verdict("asked", reply, value, error, "m", "2026-01-01")])
        rows.append({"id": str(n), "kind": "answer", "blind": False, "group": f"d{n // 2}", "family": "other", "seconds": 0.0})
        rows[-1] |= {"domain": "mmdu", "options": [], "ratios": {"judge": found.ratios}}
        rows[-1] |= {"values": {} if found.value is None else {"judge": found.value}}
    result = summarise(rows, {"judge": metric})
    return {name: m.value for name, m in result.measurements["judge"].items()}


def test_official_means_are_over_whole_turns():
    found = numbers(GOLDEN, "official")
    assert (found["Creativity"], found[OVERALL], found["all"]) == pytest.approx((56.67, 63.33, 63.33), abs=0.005)
    assert found["unreadable"] == 0.25


def test_the_toolkits_means_are_over_each_key():
    found = numbers(GOLDEN, "toolkit")
    assert (found["Creativity"], found[OVERALL]) == pytest.approx((45.0, 63.33), abs=0.005)
    assert found["Creativity (failures 0)"] == pytest.approx(45.0)
    assert found["Image Relationship Understanding (failures 0)"] == pytest.approx(42.5)
    assert found[f"{OVERALL} (failures 0)"] == pytest.approx(47.5)


def test_a_turn_without_an_overall_score_changes_no_official_mean():
    before, after = numbers(GOLDEN[:3], "official"), numbers((*GOLDEN[:3], NO_OVERALL), "official")
    assert {name: after[name] for name in (*QUALITIES, "all")} == {name: before[name] for name in (*QUALITIES, "all")}


def test_what_is_read_and_what_is_not():
    official = build("judge", "mmdu", {"model": "scripted:exact"})
    toolkit = build("judge", "mmdu", {"model": "scripted:exact", "mode": "toolkit"})
    full = dict.fromkeys((*QUALITIES, OVERALL), 7)
    assert official.read(f"Well {full}.") == full
    assert toolkit.read(str({**full, "Richness": 11.7, "Creativity": -2}))["Richness"] == 10
    for reply in ("", "ten", str({**full, "Richness": "7"}), str({**full, "Richness": None}), str({"Richness": True})):
        with pytest.raises(UnreadableError):
            official.read(reply)
    with pytest.raises(UnreadableError):
        toolkit.read("{'Politeness': 7}")


def test_the_judge_sees_all_pictures_of_the_dialogue_or_none(server):
    server.reply = lambda body: str(dict.fromkeys((*QUALITIES, OVERALL), 5))
    group = dialogue("d", [(f"{MARKER}a", "b"), (f"{MARKER}c", "d")], [picture(0), picture(1)], "here")
    (found,) = build("judge", "mmdu", {"model": server.reference}).judge(group.samples[:1], ["said"])
    assert (found.value, found.ratios["Richness"]) == (50, (50, 1.0))
    assert pictures_in(server.bodies[0]) == 2  # though turn 1 shows one
    build("judge", "mmdu", {"model": server.reference, "pictures": False}).judge(group.samples[:1], ["said"])
    assert pictures_in(server.bodies[1]) == 0
    assert all(MARKER not in words(body) for body in server.bodies)


# -- dialogues


def test_pictures_stand_where_their_markers_stood():
    group = dialogue("d", [(f"{MARKER}{MARKER}x{MARKER}y", "r"), ("z", "r"), (f"w{MARKER}", "r")], list("abcd"), "here")
    shown = [
        [p.image if isinstance(p, ImagePart) else p.text for p in message.content] for message in group.samples[-1].messages[::2]
    ]
    assert shown == [["a", "b", "x", "c", "y"], ["z"], ["w", "d"]]
    assert [s.images() for s in group.samples] == [["a", "b", "c"], ["a", "b", "c"], ["a", "b", "c", "d"]]


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_a_marker_without_picture_and_a_picture_left_over_are_errors(pictures):
    with pytest.raises(DataError, match=f"{pictures} pictures, but 2 {MARKER}"):
        dialogue("d", [(f"{MARKER}a{MARKER}", "b")], [picture(n) for n in range(pictures)], "here")


def test_a_long_dialogue_is_built_without_copies():
    """27 turns of 3,000 characters: every turn's messages are the same objects as the last one's."""
    group = dialogue("d", [("word " * 600, "word " * 600)] * 27, [], "here")
    last = group.samples[-1].messages
    assert all(a is b for sample in group.samples for a, b in zip(sample.messages, last, strict=False))
    assert len(last) == 53


def turns(*values):
    return [{"from": ("user", "assistant")[n % 2], "value": value} for n, value in enumerate(values)]


@pytest.mark.parametrize("as_list", [False, True])
def test_the_published_file_is_read_and_bad_dialogues_are_set_aside(tmp_path, as_list):
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(encode_png(picture(n)))
    records = {
        "good": {"id": "good", "image": ["0.png", "1.png"], "conversations": turns(f"{MARKER}{MARKER}a", "b", "c", "d")},
        "short": {"id": "short", "image": ["0.png", "1.png"], "conversations": turns(f"{MARKER}a", "b")},
        "roles": {"id": "roles", "image": [], "conversations": [*turns("a"), *turns("b")]},
        "open": {"id": "open", "image": [], "conversations": turns("a", "b", "c")},
        "none": {"id": "none", "conversations": turns("a", "b")},
        "also": {"id": "also", "image": ["2.png"], "conversations": turns(f"{MARKER}a", "b")},
    }
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps(list(records.values()) if as_list else records, indent=1))
    groups = list(build("scenario", "mmdu", {"path": path}).groups(None, 0))
    assert [(g.id, len(g.samples)) for g in groups[:-1]] == [("good", 2), ("also", 1)]
    assert [s.target for s in groups[0].samples] == ["b", "d"]
    lines = path.read_text().splitlines()
    for where, name in zip(groups[-1].errors, ("short", "roles", "open", "none"), strict=True):
        line = int(where.removeprefix(f"{path}:").partition(",")[0])
        assert f'"{name}"' in "".join(lines[line - 1 : line + 1])
    assert any("field 'image'" in where for where in groups[-1].errors)
    assert any("conversations.1" in where for where in groups[-1].errors)

    path.write_text(path.read_text()[:-30])
    *kept, torn = build("scenario", "mmdu", {"path": path}).groups(None, 0)
    assert [g.id for g in kept] == ["good"]
    assert any("torn" in reason for reason in torn.errors.values())

    path.write_bytes(b'{"good": "\xff"}')
    (unread,) = build("scenario", "mmdu", {"path": path}).groups(None, 0)
    assert unread.errors[str(path)].startswith("cannot be read: 'utf-8' codec")


def test_some_questions_of_the_file_and_the_next_ones(tmp_path):
    records = [{"id": str(n), "image": [], "conversations": turns("a", "b", "c", "d")} for n in range(4)]
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps(records))
    scenario = build("scenario", "mmdu", {"path": path})
    assert [s.id for g in scenario.groups(3, 0) for s in g.samples] == ["0/1", "0/2", "1/1"]
    assert [s.id for g in scenario.groups(4, 1) for s in g.samples] == ["2/1", "2/2", "3/1", "3/2"]


def test_the_toolkits_table_is_read(tmp_path):
    coded = [base64.b64encode(encode_png(picture(n))).decode() for n in range(2)]
    rows = [
        ("0", coded, [f"{MARKER}{MARKER}a", "it's b"], ["c", "d"]),
        ("1", coded, ["a"], ["b"]),
        ("2", coded[:1], "no list", ["b"]),
    ]
    path = tmp_path / "MMDU.tsv"
    path.write_text("index\timage\tquestion\tanswer\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    *groups, aside = build("scenario", "mmdu", {"path": path}).groups(None, 0)
    assert [(g.id, [s.messages[-1].text() for s in g.samples]) for g in groups] == [("0", ["a", "it's b"])]
    assert len(aside.errors) == 2
    assert any("field 'question'" in where for where in aside.errors)


# -- the twin, and the whole


def test_albums_have_exact_answers_of_three_kinds():
    scenario = build("scenario", "mmdu_world", {"turns": 8})
    groups = list(scenario.groups(400, 0))
    samples = [s for g in groups for s in g.samples]
    assert len(samples) == 400
    kinds = Counter(s.metadata["family"] for s in samples)
    assert set(kinds) == {"one image", "several images", "earlier answer"}
    assert min(kinds.values()) >= 60
    judge = build("judge", "mmdu", {"model": "scripted:exact"})
    assert {j.value for j in judge.judge(samples[:40], [s.target for s in samples[:40]])} == {100.0}
    assert {j.value for j in judge.judge(samples[:40], [f"not {s.target}" for s in samples[:40]])} == {10.0}
    # the first named of two is right as often as the second
    first = [
        s.target == s.messages[-1].text().split(", ")[-1].split(" or ")[0]
        for s in samples
        if s.metadata["family"] == "several images"
    ]
    assert 0.4 < sum(first) / len(first) < 0.6
    for group in groups[:20]:
        assert len(group.samples[0].images()) == len(group.samples[-1].metadata["pictures"])
        assert [s.id for s in group.samples] == [f"{group.id}/{n}" for n in range(1, len(group.samples) + 1)]
    assert [s.target for g in scenario.groups(40, 0) for s in g.samples] == [s.target for s in samples[:40]]


def test_comparisons_are_true():
    scenario = build("scenario", "mmdu_world", {"turns": 6})
    checked = 0
    for index in range(30):
        group = scenario.album(index)
        count = len(group.samples[0].images())
        scenes = [scenario.domain.draw("test", 6 * index + k, 96, 0).scene for k in range(count)]
        for sample in group.samples:
            text = sample.messages[-1].text()
            if sample.metadata["family"] != "several images":
                continue
            asked = text[text.index("Which image") :]
            things = asked.partition("more " if " more " in asked else "fewer ")[2].partition(",")[0].split()
            name = things[0] if things[-1] == "things" else things[-1]
            pair = [int(word.strip("?,")[5:]) - 1 for word in asked.split() if word.startswith("Image")]
            counts = {k: sum(name in (t.colour, t.shape) for t in scenes[k].things) for k in pair}
            best = (max if " more " in asked else min)(pair, key=counts.__getitem__)
            assert sample.target == f"Image{best + 1}"
            assert len(set(counts.values())) == 2
            checked += 1
    assert checked > 20


def test_end_to_end_by_a_model_behind_an_endpoint(server):
    """The model always says 'red'; the turns after the first show that it did."""
    server.reply = lambda body: str(dict.fromkeys((*QUALITIES, OVERALL), 5)) if "examiner" in words(body) else "red"
    judged = EndpointModel(server.reference)
    options = EvaluationOptions(
        scenario={"mmdu_world": {"turns": 3}},
        inferencer="dialogue",
        metrics=[{"judge": {"of": {"mmdu": {"model": server.reference}}}}],
        samples=9,
    )
    result = evaluate(judged, None, options)
    judged.close()
    assert (result.answered, result.value("judge"), result.value("judge", "turns 1-5")) == (9, 50, 50)
    asked = [body for body in server.bodies if "examiner" not in words(body)]
    assert sorted(len(body["messages"]) for body in asked) == [1] * 3 + [3] * 3 + [5] * 3
    for body in asked:
        said = [m["content"][0]["text"] for m in body["messages"] if m["role"] == "assistant"]
        assert said == ["red"] * (len(body["messages"]) // 2)
