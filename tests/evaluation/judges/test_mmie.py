"""MMIE (arXiv 2410.10139): what its judge gets, what is read from it, its means."""

from __future__ import annotations

import pytest

from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.judges.asked import UnreadableError, Verdict
from argus.evaluation.judges.mmie import flattened
from argus.evaluation.results import summarise

from ..conftest import picture
from .conftest import pictures_in, words
from .stories import parts, story

ITEMS = {"SA": 5005, "PBL": 11482, "MSR": 3616}
TABLE = [  # SA, PBL, MSR -> AVG, as the project page has them
    (48.95, 59.05, 51.72, 55.22), (46.72, 57.57, 39.33, 51.58), (47.63, 55.12, 42.17, 50.92), (39.65, 46.12, 50.75, 45.33),
    (53.05, 71.40, 53.67, 63.65), (53.00, 71.20, 53.67, 63.52), (56.12, 73.25, 53.67, 65.47), (54.97, 68.80, 53.67, 62.63),
    (48.08, 67.93, 60.05, 61.57), (47.48, 68.70, 60.05, 61.87), (49.43, 71.85, 60.05, 64.15), (47.07, 68.33, 60.05, 61.55),
    (54.12, 73.47, 47.28, 63.93), (54.72, 72.55, 47.28, 63.57), (55.97, 74.60, 47.28, 65.05), (54.23, 71.32, 47.28, 62.73),
    (52.73, 71.63, 55.63, 64.05), (54.98, 71.87, 55.63, 64.75), (52.58, 73.57, 55.63, 65.12), (54.23, 69.47, 55.63, 63.18),
]  # fmt: skip


# -- what the judge gets


@pytest.mark.parametrize(
    ("question", "answer", "pictures", "kept", "cut"),
    [
        (("Q1+", "Q2"), ("a1+", "a2+", "a3+", "a4"), 3, ["a1", "a2"], True),
        (("Q+", "Q+", "Q+"), ("a1+", "a2"), 3, ["a1"], True),
        (("Q+",) * 4, ("a1", "a2"), 4, ["a1"], True),
        (("Q+",) * 5, ("a1",), 5, ["a1"], False),
        (("Q+",), ("plain",), 1, ["plain"], False),
        (("Q",), ("a1+", "a2+", "a3+"), 3, ["a1", "a2", "a3"], False),
        (("Q",), ("a1+", "a2+", "a3+", "a4"), 3, ["a1", "a2", "a3"], True),
    ],
)
def test_what_the_script_shows(question, answer, pictures, kept, cut):
    flat = flattened(parts(*question), parts(*answer))
    assert (len(flat.images), flat.cut) == (pictures, cut)
    assert [line for line in flat.answer.splitlines() if not line.startswith("Image-")] == kept
    numbered = [line.partition(":")[0] for line in (flat.question + flat.answer).splitlines() if line.startswith("Image-")]
    assert numbered == [f"Image-{n}" for n in range(pictures)]
    everything = flattened(parts(*question), parts(*answer), enough=None)
    assert [line for line in everything.answer.splitlines() if line.startswith("a")] == [
        a.strip("+") for a in answer if a[0] == "a"
    ]
    assert not everything.cut


def test_more_than_four_pictures_are_left_out_and_counted():
    judge, strict = (build("judge", name, {"model": "scripted:exact"}) for name in ("mmie", "mmie_strict"))
    samples = [story(0), story(1, asked=("Q+",) * 5), story(2, asked=("Q+",) * 3)]
    answers = ["plain", "plain", "a1 <image>a small red star at the top left</image> a2"]
    found = judge.judge(samples, answers)
    assert [one.value is None for one in found] == [False, True, False]
    assert [one.ratios["left out"][0] for one in found] == [0, 1, 0]
    assert [one.ratios["cut"][0] for one in found] == [0, 0, 1]
    assert [one.ratios["text only"][0] for one in found] == [1, 1, 0]
    assert "invalid" not in found[1].ratios
    assert not any(one.ratios["left out"][0] or one.ratios["cut"][0] for one in strict.judge(samples, answers))


def test_a_picture_that_is_not_there_is_skipped(tmp_path):
    flat = flattened([TextPart("Q"), ImagePart(tmp_path / "gone.png"), TextPart("R"), ImagePart(picture(1))], [])
    assert len(flat.images) == 1
    assert flat.question.splitlines()[2].startswith("Image-0")


# -- what is read from it


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        ("Good. ### Score\n5", 5, 5),
        ("### Score: 3/6", 3, 3),
        ("### Score\n4.5", 4, 4),
        ("### Score\n5.5", 6, 6),
        ("### Score\n2.5", 2, 2),
        ("### Score (0-6)\n4", 0, 4),
        ("### Score\nText 2, picture 3: 5 out of 6", 2, 5),
        ("score 4", None, None),
        ("### Score\nnone", None, None),
        ("### Score\n-1", None, None),
        ("### Score\n7", None, None),
    ],
)
def test_scores(reply, official, strict):
    for name, expected in (("mmie", official), ("mmie_strict", strict)):
        judge = build("judge", name, {"model": "scripted:exact"})
        if expected is None:
            with pytest.raises(UnreadableError):
                judge.read(reply)
        else:
            assert judge.read(reply) == expected
    assert build("judge", "mmie", {"model": "scripted:exact"}).number("### Score\n-1") == -1  # read, and refused


def test_categories_by_a_part_of_the_id_or_by_its_beginning():
    judge, strict = (build("judge", name, {"model": "scripted:exact"}) for name in ("mmie", "mmie_strict"))
    misread = Sample("MSR-SAT-1", [Message("user", parts("Q"))], "4")
    assert (judge.category(misread), strict.category(misread)) == ("SA", "MSR")
    assert judge.category(Sample("PBL3", [])) == "PBL"
    assert not judge.applies(Sample("7", []))
    assert judge.applies(story(0, "MSR"))
    assert not strict.applies(story(0, "MSR"))  # without a reference


def test_the_judge_sees_pictures_in_their_places(server):
    server.reply = lambda body: "Fine.\n### Score\n5"
    judge = build("judge", "mmie", {"model": server.reference})
    sample = Sample("MSR1", [Message("user", parts("Q1+", "Q2"))], "forty two")
    (found,) = judge.judge([sample], ["It is 42. <image>a small red star at the top left</image> See?"])
    assert found.value == pytest.approx(100 * 5 / 6)
    (body,) = server.bodies
    assert pictures_in(body) == 2
    kinds = [part["type"] for part in body["messages"][-1]["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    said = words(body)
    assert said.index("Image-0") < said.index("Q2") < said.index("It is 42.") < said.index("Image-1") < said.index("See?")
    assert "### Correct Answer\nforty two" in said
    sample.target = None
    judge.judge([sample], ["It is 42."])
    assert "### Correct Answer\nNone" in words(server.bodies[1])  # as the script has it
    judge.judge([story()], ["Once."])
    assert "Correct Answer" not in words(server.bodies[2])
    judge.judge([story()], ["Once."])
    assert len(server.bodies) == 3  # verdicts are kept


def test_any_chat_model_can_be_the_judge(server):
    """One without the benchmark's tuning, too; what it cannot say is not counted, and not asked for again."""
    server.reply = lambda body: "I like it."
    (found,) = build("judge", "mmie", {"model": server.reference}).judge([story()], ["Once."])
    assert (found.value, found.ratios["invalid"], len(server.bodies)) == (None, (1, 1), 1)
    local = build("judge", "mmie_strict", {"model": "argus/tiny-vlm", "max_new_tokens": 2})
    (found,) = local.judge([story()], ["Once."])
    assert found.ratios["invalid"] == (1, 1)


# -- means


def row(number, judgement, prefix):
    found = {"id": str(number), "kind": "answer", "blind": False, "group": str(number), "family": prefix, "seconds": 0.0}
    values = {} if judgement.value is None else {"judge": judgement.value}
    return {**found, "domain": "mmie", "options": [], "ratios": {"judge": judgement.ratios}, "values": values}


def test_invalid_scores_are_left_out_of_the_mean_and_counted():
    metric = build("metric", "judge", {"of": {"mmie": {"model": "scripted:exact"}}})
    (judge,) = metric.judges
    rows = []
    for n, (prefix, value) in enumerate([("SA", 6), ("SA", None), ("PBL", 3), ("PBL", 0), ("MSR", 3)]):
        error = None if value is not None else "unreadable"
        rows.append(row(n, judge.judgement(story(n, prefix), [Verdict("", "", value, error, "m", "2026-01-01")]), prefix))
    found = {name: m.value for name, m in summarise(rows, {"judge": metric}).measurements["judge"].items()}
    assert (found["SA"], found["PBL"], found["MSR"]) == (100, 25, 50)
    assert found["all"] == pytest.approx((1 * 100 + 2 * 25 + 1 * 50) / 4)  # weighted by the valid items of the categories
    assert found["score"] == 3
    assert found["invalid"] == 0.2


@pytest.mark.parametrize("row_of", TABLE)
def test_the_published_averages_are_weighted_by_items(row_of):
    """As one answer per category that stands for all of them."""
    *cells, average = row_of
    summed = sum(cell * count for cell, count in zip(cells, ITEMS.values(), strict=True)) / sum(ITEMS.values())
    assert summed == pytest.approx(average, abs=0.015)
    # the metric's mean over answers is that sum: three answers with the categories' scores, as frequent as 5:11:4
    metric = build("metric", "judge", {"of": {"mmie": {"model": "scripted:exact"}}})
    (judge,) = metric.judges
    rows = []
    for prefix, cell, count in zip(ITEMS, cells, (5, 11, 4), strict=True):
        judged = judge.judgement(story(0, prefix), [Verdict("", "", 6 * cell / 100, None, "m", "2026-01-01")])
        rows += [row(f"{prefix}{n}", judged, prefix) for n in range(count)]
    found = summarise(rows, {"judge": metric}).measurements["judge"]
    assert [found[prefix].value for prefix in ITEMS] == pytest.approx(cells)
    assert found["all"].value == pytest.approx(sum(c * n for c, n in zip(cells, (5, 11, 4), strict=True)) / 20)
