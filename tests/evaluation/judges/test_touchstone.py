"""TouchStone (arXiv 2308.16890): its scores, parser, position swap and items."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pytest

from argus.core.images import encode_png, load_image
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.judges import scripted
from argus.evaluation.judges.asked import UnreadableError, Verdict
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.results import summarise
from argus.evaluation.scenarios.touchstone import ABILITIES

from ..conftest import picture
from .conftest import item, pictures_in, words


@pytest.fixture
def judge():
    return build("judge", "touchstone", {"model": "scripted:truth"})


def verdict(value):
    return Verdict("asked", "replied", value, None if value else "error", "scripted:truth", "2026-01-01")


def test_golden_rows(judge):
    """A: (ref 9, model 7), (model 6, ref 10); B: error, (model 5, ref 8). Means over rounds: ref 27 / 3, model 18 / 3."""
    a = item(0, category="Visual Recognition"), [verdict([9, 7]), verdict([6, 10])]
    b = item(1, category="Visual Comprehension,Visual Recognition"), [verdict(None), verdict([5, 8])]
    metric = build("metric", "judge", {"of": {"touchstone": {"model": "scripted:truth"}}})
    rows = []
    for sample, verdicts in (a, b):
        found = judge.judgement(sample, verdicts)
        rows.append({"id": sample.id, "kind": "answer", "blind": False, "group": sample.id, "family": "Attribute QA"})
        rows[-1] |= {"domain": "touchstone", "options": [], "seconds": 0.0, "values": {"judge": found.value}}
        rows[-1] |= {"ratios": {"judge": found.ratios}}
    result = summarise(rows, {"judge": metric})
    numbers = {name: m.value for name, m in result.measurements["judge"].items()}
    assert (numbers["reference"], numbers["all"]) == (900, 600)
    assert (numbers["reference: Visual Recognition"], numbers["Visual Recognition"]) == (900, 600)
    assert (numbers["reference: Visual Comprehension"], numbers["Visual Comprehension"]) == (800, 500)
    assert numbers["unreadable"] == 0.25
    assert numbers["position bias"] == 1.0  # of A alone: |7 - 6|
    assert result.measurements["judge"]["all"].unit == "points"
    assert result.measurements["judge"]["win rate"].unit == "share"


@pytest.mark.parametrize(
    ("reply", "scores"),
    [("8 7", [8, 7]), ("8.5 7", [8.5, 7]), (" 9 10 ", [9, 10]), ("8 7\nok", [8, 7]), ("8 7\n\nFirst ...", [8, 7])],
)
def test_replies_that_are_verdicts(judge, reply, scores):
    assert judge.read(reply) == scores


@pytest.mark.parametrize(("reply", "scores"), [("8, 7", [8, 7]), ("Score: 8 7", [8, 7]), ("8  7", [8, 7])])
def test_replies_that_only_the_tolerant_parser_reads(judge, reply, scores):
    tolerant = build("judge", "touchstone", {"model": "scripted:truth", "parser": "tolerant"})
    assert tolerant.read(reply) == scores
    with pytest.raises(UnreadableError):
        judge.read(reply)


@pytest.mark.parametrize("reply", ["", "\n8 7", "8", "nan 7", "8 inf", "eight seven", "8 7 6"])
def test_replies_that_are_no_verdicts(judge, reply):
    with pytest.raises(UnreadableError):
        judge.read(reply)


def test_a_judge_of_content_has_no_position_bias(judge):
    (found,) = judge.judge([item()], ["a red ring"])
    first, second = (v.value for v in found.verdicts)
    assert first == second[::-1]
    assert found.ratios["position bias"] == (0.0, 1.0)


def test_a_judge_that_prefers_the_first_shifts_both_by_half_a_point():
    judges = [build("judge", "touchstone", {"model": f"scripted:{rule}"}) for rule in ("truth", "first")]
    fair, biased = (judge.judge([item()], ["a red ring"])[0] for judge in judges)
    assert biased.value - fair.value == pytest.approx(50)  # half a judge's point
    assert biased.ratios["reference"][0] - fair.ratios["reference"][0] == pytest.approx(100)  # over two rounds
    assert biased.ratios["position bias"] == (pytest.approx(1.0), 1.0)


def test_the_prompt_holds_description_question_and_answers_but_no_picture(server):
    build("judge", "touchstone", {"model": server.reference}).judge([item(7)], ["a blue ring"])
    one, two = sorted(server.bodies, key=lambda body: words(body).index("a blue ring"), reverse=True)
    for body in (one, two):
        assert pictures_in(body) == 0
        assert all(part in words(body) for part in ("A red star, number 7.", "What is it?", "a red star", "a blue ring"))
    text = words(one)  # the reference first
    places = ["A red star, number 7.", "What is it?", "a red star\n", "a blue ring\n"]
    assert [text.index(p) for p in places] == sorted(text.index(p) for p in places)


def test_an_empty_answer_is_judged_as_it_is(judge):
    """Nothing said: (1 + 0 - 0) / 2 of the scale from 1 to 10."""
    (found,) = judge.judge([item()], [""])
    assert found.value == pytest.approx(100 * (1 + 9 / 2))


def tau(a, b):
    """Kendall's tau-b by its definition."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    x, y = (np.sign([v[i] - v[j] for i, j in pairs]) for v in (a, b))
    return (x * y).sum() / max(1e-9, np.sqrt((x**2).sum() * (y**2).sum()))


def test_the_judge_ranks_as_exact_accuracy_does_and_not_without_the_description():
    """Ten 'checkpoints' tell the truth about a scene with rising probability, and otherwise something as long."""
    scenario = build("scenario", "touchstone_world", {"questions": 0})
    samples = [group.samples[0] for group in scenario.groups(24, 0)]
    others = [group.samples[0] for group in scenario.groups(24, 1)]
    order = np.random.default_rng(0).permutation(len(samples))
    counts = [2, 5, 7, 9, 11, 13, 15, 18, 20, 23]
    judges = [build("judge", "touchstone", {"model": "scripted:truth", "description": shown}) for shown in (True, False)]
    scores = {judge: [] for judge in judges}
    for right in counts:
        true = set(order[:right].tolist())
        answers = [(s if i in true else o).target for i, (s, o) in enumerate(zip(samples, others, strict=True))]
        for judge in judges:
            scores[judge].append(np.mean([j.value for j in judge.judge(samples, answers)]))
    told, untold = (scores[judge] for judge in judges)
    assert tau(told, counts) == pytest.approx(1.0)
    assert tau(told[::4], counts[::4]) == pytest.approx(1.0)  # three of them
    assert abs(tau(untold, counts)) < 0.5


# -- items


def tsv(path, rows):
    columns = ["index", "image", "question", "human_annotation", "gpt4_ha_answer", "category", "task_name"]
    lines = ["\t".join(columns), *("\t".join(str(row.get(c, "")) for c in columns) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def row(index, **changes):
    image = base64.b64encode(encode_png(picture(index))).decode()
    known = {"index": index, "image": image, "question": "What is it?", "human_annotation": f"Noise {index}."}
    known |= {"gpt4_ha_answer": "Noise.", "category": "Visual Recognition", "task_name": "Attribute QA"}
    return known | changes


def test_items_are_read_and_bad_ones_set_aside(tmp_path):
    two = [base64.b64encode(encode_png(picture(n))).decode() for n in (5, 6)]
    rows = [row(0), row(1, human_annotation=""), row(2, image="no base64!"), row(3, image=two, category="A,B"), row(4, image="")]
    path = tsv(tmp_path / "set.tsv", rows)
    groups = list(build("scenario", "touchstone", {"path": path, "rows": None}).groups(None, 0))
    found = [s for g in groups for s in g.samples]
    assert [s.id for s in found] == ["0", "3"]
    assert (found[0].target, found[0].metadata["description"]) == ("Noise.", "Noise 0.")
    shown = [np.asarray(load_image(i)) for i in found[1].images()]
    assert all((a == np.asarray(picture(n))).all() for a, n in zip(shown, (5, 6), strict=True))  # in order
    errors = {where: reason for g in groups for where, reason in g.errors.items()}
    assert len(errors) == 3
    assert f"{path}:3, field 'human_annotation'" in errors
    assert any(where.startswith(f"{path}:4") for where in errors)
    assert f"{path}:6, field 'image'" in errors


@pytest.mark.parametrize(("rows", "complains"), [(2, False), (908, True), (None, False)])
def test_the_number_of_items_is_checked(tmp_path, rows, complains):
    path = tsv(tmp_path / "set.tsv", [row(0), row(1)])
    groups = list(build("scenario", "touchstone", {"path": path, "rows": rows}).groups(None, 0))
    assert any("#rows" in where for g in groups for where in g.errors) == complains


def test_five_abilities_and_27_sub_tasks():
    assert (len(ABILITIES), sum(map(len, ABILITIES.values()))) == (5, 27)


def test_the_judge_gives_the_truth_of_the_world_all_points_and_lies_few(judge):
    scenario = build("scenario", "touchstone_world", {"questions": 5})
    samples = [s for g in scenario.groups(40, 0) for s in g.samples]
    assert len({s.id for s in samples}) == 40
    assert {s.metadata["category"] for s in samples} == {"Basic Description", "Visual Recognition", "Visual Comprehension"}
    assert [j.value for j in judge.judge(samples, [s.target for s in samples])] == [1000.0] * 40
    wrong = [next((o for o in s.options if o != s.target), "nothing") for s in samples]
    found = [j.value for j in judge.judge(samples, wrong)]
    assert max(found) < 1000  # "top left" for "top right" is half right
    assert np.mean(found) < 300


def test_hallucinated_things_cost_and_left_out_ones_do_not():
    hallucination = build("metric", "hallucination", {"of": {"hallucination": {"model": "scripted:supported"}}})
    assert (hallucination.better, hallucination.unit) == ("lower", "points")
    assert not hallucination.applies(item())
    sample = item(category="Basic Description", facts=("a red star", "a blue ring"))
    (judge,) = hallucination.judges
    said = ["a red star; a blue ring", "a red star", "", "a red star; a green heart", "a green heart"]
    assert [j.value for j in judge.judge([sample] * 5, said)] == [1, 1, 1, 5.5, 10]
    for reply in ("0", "11", "3 of 10", "", "three"):
        with pytest.raises(UnreadableError):
            judge.read(reply)


def test_end_to_end_records_hold_request_verdict_and_reason(model, processor, tmp_path, server):
    path = tsv(tmp_path / "set.tsv", [row(n) for n in range(3)])
    server.reply = lambda body: "9 4\nThe second is noise." if "Noise 2." not in words(body) else "I cannot."
    of = {"touchstone": {"model": server.reference, "tries": 1}}
    options = EvaluationOptions(
        scenario={"touchstone": {"path": path, "rows": None}},
        inferencer={"generate": {"max_new_tokens": 2}},
        metrics=[{"judge": {"of": of}}],
        samples=None,
    )
    records = MemoryRecords()
    result = evaluate(model, processor, options, run_part=records, progress=False)
    # two items, each 4 in round 1 and 9 in round 2
    assert (result.value("judge"), result.value("judge", "reference")) == (650, 650)
    assert result.value("judge", "unreadable") == pytest.approx(1 / 3)
    assert result.value("judge", "position bias") == 5
    notes = [r["notes"]["judge"] for r in records.rows if r["kind"] == "answer"]
    one = notes[0]["verdicts"][0]
    assert (one["value"], one["reply"], one["model"]) == ([9, 4], "9 4\nThe second is noise.", server.reference)
    assert "Noise 0." in one["request"]
    assert notes[2]["verdicts"][0]["error"].startswith("unreadable")
    before = len(server.bodies)
    assert evaluate(model, processor, options, progress=False).measurements == result.measurements
    assert len(server.bodies) == before  # answers came anew, verdicts did not


def test_a_model_behind_an_endpoint_is_judged_like_any(server, tmp_path):
    from argus.evaluation.endpoint import EndpointModel

    path = tsv(tmp_path / "set.tsv", [row(n) for n in range(4)])
    judged = EndpointModel(server.reference)
    server.reply = lambda body: "9 4" if "assistant 1" in words(body) else "noise"
    options = EvaluationOptions(
        scenario={"touchstone": {"path": path, "rows": None}},
        inferencer="generate",
        metrics=[{"judge": {"of": {"touchstone": {"model": server.reference}}}}],
        samples=None,
    )
    assert evaluate(judged, None, options).value("judge") == 650
    judged.close()
    assert len(server.bodies) == 4 + 8


def test_credit_by_hand():
    """Facts of 3 + 3 words; 'a red star' says 2 of them... the article says nothing: 2 of 4, nothing false: (1 + 0.5) / 2."""
    facts = ("a red star", "a blue ring")
    assert scripted.credit(facts, "a red star") == 0.75
    assert scripted.credit(facts, "a red ring") == pytest.approx((1 + 1 / 4 - 1 / 2) / 2)
    assert scripted.credit(facts, "a red star; a red star") == pytest.approx((1 + 2 / 4 - 2 / 4) / 2)  # a fact counts once
    assert scripted.credit(("2",), "Two.") == 1.0
