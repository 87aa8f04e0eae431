"""MMIE's twin in the world: the points of an exact judge, and answers that show what they tell."""

from __future__ import annotations

import pytest

from argus.core.registry import build
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.world.telling import oracle, read_state

from .conftest import pictures_in
from .stories import BEFORE, story


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
