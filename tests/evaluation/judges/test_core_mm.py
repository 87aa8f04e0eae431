"""CORE-MM (arXiv 2311.11567): its weights, its rule for an item, its items, its twin in the world."""

from __future__ import annotations

import json

import pytest

from argus.core.errors import RecipeError
from argus.core.images import encode_png
from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.engine import evaluate
from argus.evaluation.final_answer import final_answer_1
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.judges.asked import UnreadableError, Verdict
from argus.evaluation.judges.core_mm import item_score
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.results import summarise

from ..conftest import picture
from .conftest import pictures_in, words

STEPS = ("the top left is 3", "the top right is 2", "3 and 2 make 1", "1 is square")
CROSSED = {  # kind -> moderate, high items, as published
    "Deductive": (113, 68),
    "Abductive": (32, 17),
    "Analogical": (26, 23),
}


def puzzle(number: int = 0, complexity: str = "High", family: str = "Deductive", steps=STEPS, **known) -> Sample:
    metadata = {"steps": list(steps), "complexity": complexity, "family": family, **known}
    return Sample(f"p{number}", [Message("user", [TextPart("Which shape do they make?")])], "square", [], metadata)


def numbers(items, **options) -> dict[str, float]:
    """The measured numbers of (complexity, kind, score) items, each with ten thousand steps of which a share was taken."""
    metric = build("metric", "judge", {"of": {"core_mm": {"model": "scripted:stated", **options}}})
    (judge,) = metric.judges
    rows = []
    for n, (complexity, family, score) in enumerate(items):
        whole = 10_000
        value = {"right": score == 1, "steps": list(range(1, round(whole * score) + 1)), "contradicted": []}
        found = judge.judgement(puzzle(n, complexity, family, range(whole)), [Verdict("", "", value, None, "m", "2026-01-01")])
        rows.append({"id": str(n), "kind": "answer", "blind": False, "group": str(n), "family": family, "seconds": 0.0})
        rows[-1] |= {"domain": "core-mm", "options": [], "ratios": {"judge": found.ratios}, "values": {"judge": found.value}}
    return {name: m.value for name, m in summarise(rows, {"judge": metric}).measurements["judge"].items()}


def by_complexity(moderate, high, counts=(171, 108)):
    return [*[("Moderate", "Deductive", moderate)] * counts[0], *[("High", "Deductive", high)] * counts[1]]


def by_kind(scores, missing=0):
    """Items that all have their kind's score; `missing` moderate analogical ones were not scored."""
    found = []
    for (kind, (moderate, high)), score in zip(CROSSED.items(), scores, strict=True):
        moderate -= missing * (kind == "Analogical")
        found += [("Moderate", kind, score)] * moderate + [("High", kind, score)] * high
    return found


def test_the_published_table_from_both_sides():
    """GPT-4V is published with 74.44, LLaVA-1.5 with 32.62 over one item less."""
    assert numbers(by_complexity(0.9398, 0.5898))["all"] == pytest.approx(74.45, abs=0.005)
    assert numbers(by_kind((0.7486, 0.7788, 0.6986)))["all"] == pytest.approx(74.44, abs=0.005)
    assert numbers(by_complexity(0.4740, 0.2100, (170, 108)))["all"] == pytest.approx(32.63, abs=0.005)
    assert numbers(by_kind((0.3094, 0.4791, 0.2431), missing=1))["all"] == pytest.approx(32.62, abs=0.005)
    assert numbers(by_complexity(0.4740, 0.2100))["all"] == pytest.approx(32.67, abs=0.005)


def test_columns_are_weighted_by_kind_and_plain_by_complexity():
    found = numbers([("Moderate", "Deductive", 1.0), ("High", "Deductive", 0.25), ("High", "Abductive", 0.5)])
    assert found["Deductive"] == pytest.approx(100 * (1 + 2 * 0.25) / 3)
    assert (found["Moderate"], found["High"], found["Abductive"]) == pytest.approx((100, 37.5, 50))
    assert found["all"] == pytest.approx(100 * (1 + 2 * 0.75) / 5)
    assert found["answers right"] == pytest.approx(100 / 3)
    assert numbers([("Moderate", "x", 1.0), ("High", "x", 0.25)], high=1)["all"] == pytest.approx(62.5)  # the frequent mistake


def test_weights_keep_their_invariants():
    mixed = [("Moderate", "Deductive", 0.75), ("High", "Deductive", 0.5), ("Moderate", "Deductive", 0.25)]
    whole = numbers(mixed)["all"]  # 50: (0.75 + 2 * 0.5 + 0.25) / 4
    for complexity in ("Moderate", "High"):
        assert numbers([*mixed, (complexity, "Deductive", whole / 100)])["all"] == pytest.approx(whole)
    assert numbers(by_complexity(1, 1))["all"] == 100
    assert numbers(by_complexity(0, 1))["all"] == pytest.approx(55.81, abs=0.005)
    assert numbers(by_complexity(1, 0))["all"] == pytest.approx(44.19, abs=0.005)


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("The top left is 3; the top right is 2; 3 and 2 make 1; 1 is square; answer square", 1),
        ("Square.", 1),  # right without any step
        ("the top left is 3; the top right is 2; answer star", 0.5),
        ("the top left is 3; the top left is 3; the top left is 3; answer star", 0.25),  # one step, however often
        ("the top left is 3; the top left is 2; the top right is 2; answer star", 0.25),  # guessed, so not taken
        ("the bottom left is 1; answer star", 0),
        ("", 0),
    ],
)
def test_what_an_item_is_worth(response, score):
    (found,) = build("judge", "core_mm", {"model": "scripted:stated"}).judge([puzzle()], [response])
    assert found.value == 100 * score
    assert found.ratios["all"] == (200 * score, 2)


def test_credit_never_exceeds_the_steps():
    assert item_score(False, 9, 4) == 1
    judge = build("judge", "core_mm", {"model": "scripted:stated"})
    value = judge.read("{'steps': [1, 1, 2, 7, 9], 'contradicted': [2], 'correct': False}")
    assert value == {"right": False, "steps": [1, 7, 9], "contradicted": [2]}
    assert judge.judgement(puzzle(), [Verdict("", "", value, None, "m", "2026-01-01")]).value == 25  # there are no steps 7 and 9


def test_counter_intuitive_items_are_a_subset():
    judge = build("judge", "core_mm", {"model": "scripted:stated"})
    found = judge.judge([puzzle(0, counter_intuitive=True), puzzle(1)], ["square", "square"])
    assert [one.ratios.get("counter-intuitive") for one in found] == [(100, 1), None]


# -- the judge


def test_a_judge_that_knows_no_steps_is_refused():
    with pytest.raises(RecipeError, match="scripted:stated"):
        build("judge", "core_mm", {"model": "scripted:exact"})


@pytest.mark.parametrize(
    "reply", ["", "yes", "{'steps': [1]}", "{'correct': 1, 'steps': []}", "{'correct': True, 'steps': ['1']}"]
)
def test_what_is_no_verdict(reply):
    with pytest.raises(UnreadableError):
        build("judge", "core_mm", {"model": "scripted:stated"}).read(reply)


def test_the_judge_reads_steps_and_response_and_sees_no_picture(server):
    server.reply = lambda body: "2 of 4. {'steps': [1, 2], 'contradicted': [], 'correct': False}"
    judge = build("judge", "core_mm", {"model": server.reference})
    response = "<think>Perhaps 4?</think>The top left is 3 and the top right is 2. Answer: star"
    (found,) = judge.judge([puzzle()], [response])
    assert (found.value, found.ratios["steps"]) == (50, (200, 4))
    asked = words(server.bodies[0])
    assert pictures_in(server.bodies[0]) == 0
    assert all(f"{n}. {step}" in asked for n, step in enumerate(STEPS, start=1))
    assert "Perhaps" not in asked
    judge.judge([puzzle()], [response])
    assert len(server.bodies) == 1  # verdicts are kept
    build("judge", "core_mm", {"model": server.reference, "thoughts": True}).judge([puzzle()], [response])
    assert "Perhaps" in words(server.bodies[1])


def test_an_unreadable_verdict_is_asked_for_again_and_counts_in_no_score(server):
    replies = iter(["well", "{'steps': [], 'correct': True}", *["no"] * 5])
    server.reply = lambda body: next(replies)
    judge = build("judge", "core_mm", {"model": server.reference})
    first, second = (judge.judge([puzzle(n)], [f"answer {n}"])[0] for n in range(2))
    assert (first.value, len(server.bodies)) == (100, 7)
    assert second.value is None
    assert second.ratios == {"unreadable": (1, 1)}


# -- answers, and a second turn for them


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("the top left is 3; answer 3", "3"),
        ("It is red.\nFinal answer: **blue**.", "blue"),
        ("The answer is no. Or rather, the answer is yes.", "yes"),
        (r"We get \boxed{42}.", "42"),
        ("There are two stars. So the sum is 7.", "the sum is 7"),
        ("Blue", "Blue"),
        ("<think>The answer is 3</think>4", "4"),
        ("There are two stars. There is a ring.", None),
        ("I cannot tell.", None),
        ("Could you show me the picture?", None),
        ("", None),
    ],
)
def test_the_final_answer(response, answer):
    assert final_answer_1(response) == answer


class Student:
    """Answers the questions it knows at once, and the others when asked for its steps."""

    def __init__(self):
        self.asked = []

    def generate(self, questions, max_new_tokens):
        self.asked += questions
        return [Answer(self.said(q.sample), tokens=3) for q in questions]

    def said(self, sample):
        if len(sample.messages) > 1:
            return "the top left is 3; answer square"
        return "Square." if sample.id in ("p0", "p2") else "There are things. There are more of them."


def test_a_second_turn_only_where_there_is_no_answer():
    student = Student()
    questions = [Question(f"g{n}", puzzle(n), []) for n in range(4)]
    answers = build("inferencer", "steps", {"ask": "Explain."}).answer(student, questions)
    assert [a.notes["turns"] for a in answers] == [1, 2, 1, 2]
    assert [q.sample.id for q in student.asked] == ["p0", "p1", "p2", "p3", "p1", "p3"]  # one generation each, two of them more
    assert [m.text() for m in student.asked[4].sample.messages[1:]] == ["There are things. There are more of them.", "Explain."]
    assert answers[1].text == "There are things. There are more of them.\nthe top left is 3; answer square"
    assert (answers[0].tokens, answers[1].tokens) == (3, 6)
    (one,) = build("inferencer", "steps").answer(student, questions[:1])
    assert one.text == "Square."


def test_the_second_turn_goes_with_other_ways_of_asking():
    assert build("inferencer", "steps", {"of": {"dialogue": {"history": "own"}}}).whole_groups
    assert not build("inferencer", "steps").whole_groups


# -- the published items


def item(number: int, **changes) -> dict:
    return {
        "images": [f"{number}.png"],
        "question": f"question {number}?",
        "answer": "square",
        "steps": list(STEPS),
        "reasoning_type": "Deductive",
        "complexity": "High",
        **changes,
    }


@pytest.fixture
def download(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(encode_png(picture(n)))
    records = {
        "1": item(0),
        "2": item(1, images=["2.png", "1.png"], reasoning_type="analogical", complexity="Moderate", counter_intuitive=True),
        "3": item(1, complexity="Low"),
        "4": item(1, images=[]),
        "5": item(9),
        "6": {key: value for key, value in item(3).items() if key not in ("answer", "steps")},
        "7": item(3, answer=4),
        "8": item(3, answer=None, steps=None),
    }
    (tmp_path / "core_mm.json").write_text(json.dumps(records, indent=1))
    return tmp_path


def test_the_published_file_is_read_and_bad_items_are_set_aside(download):
    scenario = build("scenario", "core_mm", {"path": download})
    *groups, aside = scenario.groups(None, 0)
    samples = [sample for group in groups for sample in group.samples]
    assert [s.id for s in samples] == ["1", "2", "5", "6", "8"]
    assert [path.name for path in samples[1].images()] == ["2.png", "1.png"]  # in their order
    assert samples[1].metadata["family"] == "Analogical"
    assert samples[0].messages[-1].text().startswith("question 0?\nThink step by step")
    assert [place.partition(", field ")[2] for place in aside.errors] == ["'complexity'", "'images'", "'answer'"]
    judge = build("judge", "core_mm", {"model": "scripted:stated"})
    assert [judge.applies(s) for s in samples] == [True, True, True, False, False]  # answers of the last ones are withheld
    found = scenario.check()
    assert (found.found["Deductive"], found.published["Deductive"]) == (3, 181)
    assert found.bad == 4  # three records, and a missing picture
    assert sum(n for n in found.published.values()) == 279
    only = build("scenario", "core_mm", {"path": download, "complexity": "Moderate"})
    assert [s.id for g in only.groups(None, 0) for s in g.samples] == ["2"]


# -- the twin, and the whole


def test_puzzles_are_right_step_by_step():
    """What the steps say of places is what stands there, and what they calculate is right."""
    scenario = build("scenario", "core_mm_world", {"questions": 9})
    judge = build("judge", "core_mm", {"model": "scripted:stated"})
    seen = set()
    for group in scenario.groups(360, 0):
        scene = scenario.domain.draw("test", int(group.id.rpartition("/")[2]), 96, 0).scene
        shapes = dict(zip(("top left", "top right", "bottom left", "bottom right"), scene.picture.things, strict=True))
        for sample in group.samples:
            steps, known = sample.metadata["steps"], sample.metadata
            seen.add((known["branches"][0], known["complexity"], len(steps)))
            for step in steps:
                said = step.split()
                if said[0] == "the" and " ".join(said[1:3]) in shapes:
                    thing = shapes[" ".join(said[1:3])]
                    assert said[4] in (thing.shape, str(("circle", "square", "triangle", "star").index(thing.shape)))
                if said[1] == "and":
                    assert (int(said[0]) + int(said[2])) % 4 == int(said[4])
                if "makes" in said and "turned" not in said:
                    assert (before + int(said[4])) % 4 == int(said[6])  # noqa: F821  of the step before
                before = int(said[-1]) if said[-1].isdigit() else None  # noqa: F841
            told = f"{'; '.join(steps)}; answer {sample.target}"
            assert judge.judge([sample], [told])[0].ratios["steps"] == (100 * len(steps), len(steps))
    assert {(complexity, n > 2) for _, complexity, n in seen} == {("Moderate", False), ("High", True)}
    assert {n for *_, n in seen} == {1, 2, 3, 4}
    assert len({family for family, *_ in seen}) == 9


def test_a_taught_rationale_is_worth_all_steps_and_shorter_ones_their_share():
    domain = build("domain", "puzzles", {"rationales": True})
    scenario = build("scenario", "core_mm_world", {"settings": {"rationales": True}})  # asks all the same
    judge = build("judge", "core_mm", {"model": "scripted:stated"})
    for group in scenario.groups(60, 0):
        taught = domain.draw("test", int(group.id.rpartition("/")[2]), 96, 6).questions
        for sample, question in zip(group.samples, taught, strict=False):
            assert question.answer == f"{'; '.join(sample.metadata['steps'])}; answer {sample.target}"
            count = len(sample.metadata["steps"])
            whole, part = judge.judge([sample] * 2, [question.answer, f"{sample.metadata['steps'][0]}; answer nothing"])
            assert (whole.value, part.value) == pytest.approx((100, 100 / count))


def test_values_are_told_unless_a_model_knows_them():
    for told in (True, False):
        drawing = build("domain", "puzzles", {"told": told}).draw("test", 0, 64, 4)
        assert {
            question.text.startswith("Circle 0, square 1") for question in drawing.questions if question.family != "next"
        } == {told}


def test_end_to_end_by_a_model_behind_an_endpoint(server):
    """The model never answers at once; its second turn is always "star"."""
    server.reply = lambda body: "Hm. Well." if len(body["messages"]) == 1 else "answer star"
    asked = EndpointModel(server.reference)
    options = EvaluationOptions(
        scenario={"core_mm_world": {}},
        inferencer="steps",
        metrics=[{"judge": {"of": {"core_mm": {"model": "scripted:stated"}}}}],
        samples=12,
    )
    result = evaluate(asked, None, options)
    asked.close()
    assert (result.answered, len(server.bodies)) == (12, 24)
    assert all(pictures_in(body) == 1 for body in server.bodies)
    assert result.value("judge", "unreadable") == 0
    assert 0 <= result.value("judge") <= 60
