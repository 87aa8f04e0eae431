"""MMIE (arXiv 2410.10139): what its judge gets, what is read from it, its means, its items, its twin in the world."""

from __future__ import annotations

import json

import numpy as np
import pytest

from argus.core.images import encode_png
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.interleaved import read, written
from argus.evaluation.judges.asked import UnreadableError, Verdict
from argus.evaluation.judges.mmie import flattened
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.results import summarise
from argus.world.telling import drawn, oracle, read_state

from ..conftest import picture
from .conftest import pictures_in, words

ITEMS = {"SA": 5005, "PBL": 11482, "MSR": 3616}
TABLE = [  # SA, PBL, MSR -> AVG, as the project page has them
    (48.95, 59.05, 51.72, 55.22), (46.72, 57.57, 39.33, 51.58), (47.63, 55.12, 42.17, 50.92), (39.65, 46.12, 50.75, 45.33),
    (53.05, 71.40, 53.67, 63.65), (53.00, 71.20, 53.67, 63.52), (56.12, 73.25, 53.67, 65.47), (54.97, 68.80, 53.67, 62.63),
    (48.08, 67.93, 60.05, 61.57), (47.48, 68.70, 60.05, 61.87), (49.43, 71.85, 60.05, 64.15), (47.07, 68.33, 60.05, 61.55),
    (54.12, 73.47, 47.28, 63.93), (54.72, 72.55, 47.28, 63.57), (55.97, 74.60, 47.28, 65.05), (54.23, 71.32, 47.28, 62.73),
    (52.73, 71.63, 55.63, 64.05), (54.98, 71.87, 55.63, 64.75), (52.58, 73.57, 55.63, 65.12), (54.23, 69.47, 55.63, 63.18),
]  # fmt: skip
BEFORE = "a large red star at the top left; a small blue ring at the bottom right"


def parts(*texts):
    """Parts of texts; one that ends with `+` has a picture."""
    found = []
    for number, text in enumerate(texts):
        found += [TextPart(text.strip("+")), *([ImagePart(picture(number))] if text.endswith("+") else [])]
    return found


def story(number: int = 0, prefix: str = "SA", asked=("Q1+", "Q2"), **known) -> Sample:
    return Sample(f"{prefix}{number}", [Message("user", parts(*asked))], None, [], {"family": prefix, **known})


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


# -- how good a judge is


def quality(given, true):
    metric = build("metric", "judge_quality")
    rows = []
    for n, (x, y) in enumerate(zip(given, true, strict=True)):
        sample = Sample(str(n), [Message("user", [TextPart("Score?")])], str(y))
        score = metric.score(sample, Answer(f"I give {x}" if x is not None else "nothing"))
        rows.append({"id": str(n), "kind": "answer", "blind": False, "group": str(n), "family": "f", "seconds": 0.0})
        rows[-1] |= {"domain": "d", "options": [], "values": {}, "ratios": {"q": score.ratios}}
        rows[-1] |= {"notes": {"q": score.notes} if score.notes else {}}
    return {name: m.value for name, m in summarise(rows, {"q": metric}).measurements["q"].items()}


def test_judge_quality_is_what_the_formulas_say():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 7, 60)
    given = np.clip(true + rng.integers(-2, 3, 60), 0, 6)
    found = quality(given.tolist(), true.tolist())
    x, y = given - given.mean(), true - true.mean()
    assert found["all"] == pytest.approx((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))
    assert found["cosine"] == pytest.approx((given * true).sum() / np.sqrt((given**2).sum() * (true**2).sum()))
    assert found["mse"] == pytest.approx(((given - true) ** 2).mean())
    assert found["mae"] == pytest.approx(np.abs(given - true).mean())
    order = [np.array([(v < one).sum() + ((v == one).sum() - 1) / 2 for one in v]) for v in (given, true)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*order)[0, 1])
    swapped = quality(true.tolist(), given.tolist())
    assert swapped["all"] == pytest.approx(found["all"])
    moved = quality([2 * v + 1 for v in given.tolist()], true.tolist())
    assert moved["all"] == pytest.approx(found["all"])
    assert moved["mse"] > found["mse"]


def test_a_judge_that_always_says_the_same_agrees_with_nobody():
    found = quality([3, 3, 3, None], [1, 5, 6, 2])
    assert (found["all"], found["spearman"], found["unreadable"]) == (0, 0, 0.25)
    assert found["cosine"] > 0.8  # which is why it never stands alone


# -- texts and pictures in one text


def test_parts_are_written_and_read_back(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(picture(0)))
    text = written([TextPart("one"), ImagePart(tmp_path / "a.png"), TextPart("two"), ImagePart(picture(1))])
    found = read(text, drawn)
    assert [part.type for part in found] == ["text", "image", "text", "image"]
    assert found[1].image == (tmp_path / "a.png").read_bytes()
    assert written(found) == text


@pytest.mark.parametrize("torn", ["zz!", "iVBORw0KGgo=", ""])
def test_a_torn_picture_in_an_answer_is_left_out(torn):
    """A model may write anything; an evaluation does not end for it."""
    found = read(f"one <image>data:image/png;base64,{torn}</image> two", drawn)
    assert found == [TextPart("one"), TextPart("two")]


def test_descriptions_are_drawn_and_others_stay_words():
    first, shown, second, other = read(f"one <image>{BEFORE}</image> two <image>a sunset</image>", drawn)
    assert (first.text, second.text, other.text) == ("one", "two", "a sunset")
    assert np.array_equal(np.asarray(shown.image), drawn(BEFORE))
    assert (np.asarray(shown.image)[:48, :48] == (215, 35, 35)).all(-1).sum() > 100  # the red star at the top left


class Author:
    """Understands pictures and makes none."""

    def generate(self, questions, max_new_tokens):
        self.asked = list(questions)
        return [Answer("The red star turns blue. <image>a large blue star at the top left</image>") for _ in questions]


class Painter(Author):
    """Makes pictures."""

    def interleave(self, questions, max_new_tokens):
        return [[TextPart("The red star turns blue."), ImagePart(picture(0))] for _ in questions]


def test_who_makes_no_pictures_is_asked_to_describe_them():
    author = Author()
    asked = [Question("g", story(), [])]
    (answer,) = build("inferencer", "interleaved", {"ask": " Describe pictures."}).answer(author, asked)
    assert author.asked[0].sample.messages[-1].text() == "Q1Q2 Describe pictures."
    judge = build("judge", "mmie", {"model": "scripted:continued"})
    (request,) = judge.requests(story(facts=(BEFORE,)), answer.text)
    assert len(request.images) == 2  # of the question, and the drawn one
    (painted,) = build("inferencer", "interleaved").answer(Painter(), asked)
    (request,) = judge.requests(story(facts=(BEFORE,)), painted.text)
    assert np.array_equal(np.asarray(request.images[1]), np.asarray(picture(0)))


# -- the oracle and the twin


@pytest.mark.parametrize(
    ("sentence", "shown", "score"),
    [
        ("The red star turns blue.", "a large blue star at the top left; a small blue ring at the bottom right", 6),
        ("The red star becomes small.", "a small red star at the top left; a small blue ring at the bottom right", 6),
        ("The red star turns blue.", BEFORE, 5),  # the picture does not show it
        ("The red star turns red.", BEFORE, 5),  # no news
        ("The blue ring turns green.", BEFORE, 4),  # somebody else's turn: no hero, and the picture does not show it
        ("The red star turns blue.", "a large blue star at the top left", 4),  # who else was there?
        ("The red star turns blue.", "", 3),  # no picture
        ("Blue turns star red the.", BEFORE, 2),
        ("", "", 0),
    ],
)
def test_the_oracles_points(sentence, shown, score):
    before = read_state(BEFORE)
    assert oracle(before, sentence, read_state(shown)) == score
    judge = build("judge", "mmie", {"model": "scripted:continued"})
    (found,) = judge.judge([story(facts=(BEFORE,))], [f"{sentence} <image>{shown}</image>"])
    assert found.label == str(score)


def test_stories_in_the_benchmarks_form_have_a_continuation_that_is_worth_all_points():
    scenario = build("scenario", "mmie_world", {"settings": {"steps": 3}})
    samples = [s for g in scenario.groups(40, 0) for s in g.samples]
    judge = build("judge", "mmie", {"model": "scripted:continued"})
    assert {len(s.images()) for s in samples} == {3}
    assert {one.value for one in judge.judge(samples, [s.target for s in samples])} == {100}
    again = [f"{s.messages[-1].content[-3].text} <image>{s.metadata['facts'][0]}</image>" for s in samples]
    assert max(one.value for one in judge.judge(samples, again)) < 100  # the step before once more
    assert [s.target for g in scenario.groups(3, 0) for s in g.samples] == [s.target for s in samples[:3]]
    assert [s.target for g in scenario.groups(3, 1) for s in g.samples] != [s.target for s in samples[:3]]


def test_end_to_end_by_a_model_behind_an_endpoint(server):
    server.reply = lambda body: f"The red star turns blue. <image>{BEFORE}</image>"
    asked = EndpointModel(server.reference)
    options = EvaluationOptions(
        scenario={"mmie_world": {}},
        inferencer="interleaved",
        metrics=[{"judge": {"of": {"mmie": {"model": "scripted:continued"}}}}],
        samples=6,
    )
    result = evaluate(asked, None, options)
    asked.close()
    assert (result.answered, result.value("judge", "text only"), result.value("judge", "invalid")) == (6, 0, 0)
    assert 0 < result.value("judge") < 100
    assert all(pictures_in(body) == 2 for body in server.bodies)


# -- published files


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
