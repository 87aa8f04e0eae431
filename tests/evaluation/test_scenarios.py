"""What is asked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from argus.core.errors import RecipeError, UnknownNameError
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.scenarios.base import build_scenario


def world(samples: int, seed: int = 0, **options):
    return list(build_scenario(EvaluationOptions(scenario={"world/objects": options})).groups(samples, seed))


def test_the_world_gives_as_many_questions_as_asked_for():
    groups = world(20, questions=8)
    assert sum(len(g.samples) for g in groups) == 20
    assert [len(g.samples) for g in groups] == [8, 8, 4]
    ids = [s.id for g in groups for s in g.samples]
    assert len(set(ids)) == 20
    for group in groups:
        for sample in group.samples:
            assert sample.metadata["domain"] == "objects"
            assert not sample.options or sample.target in sample.options
            assert sample.images()[0] is group.samples[0].images()[0]


def test_the_world_is_the_same_each_time_and_new_for_each_seed():
    first, again, other = world(8), world(8), world(8, seed=3)
    assert [s.id for s in first[0].samples] == [s.id for s in again[0].samples]
    pixels = [np.asarray(g[0].samples[0].images()[0]) for g in (first, again, other)]
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0] != pixels[2]).any()


def test_one_family_only():
    groups = world(12, families=["count"])
    assert {s.metadata["family"] for g in groups for s in g.samples} == {"count"}


def test_settings_reach_the_domain():
    groups = world(40, families=["count"], settings={"max_objects": 1})
    assert len(groups) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["counting"]}, "Did you mean 'count'"),
        ({"split": "exam"}, "option 'split'"),
        ({"picture": 96}, "unknown option 'picture'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(RecipeError, match=message):
        world(8, **options)


def test_an_unknown_domain_is_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'objects'"):
        build_scenario(EvaluationOptions(scenario="world/objcts"))


def test_the_world_has_no_end():
    scenario = build_scenario(EvaluationOptions(scenario="world/objects", samples=None))
    with pytest.raises(RecipeError, match="no end"):
        next(scenario.groups(None, 0))


def test_records_of_a_file_that_nobody_could_answer_are_counted(tmp_path):
    """Two with one id would share an answer; a target that is no option is wrong whatever is chosen."""
    path = tmp_path / "data.jsonl"
    turns = {"messages": [{"role": "user", "content": "How many?"}], "options": ["one", "two"]}
    rows = [
        {**turns, "id": "a", "target": "two"},
        {**turns, "id": "a", "target": "one"},
        {**turns, "id": "b", "target": "three"},
        {**turns, "id": "c", "target": "Two."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "torn')
    scenario = build_scenario(EvaluationOptions(scenario={"file": {"path": str(path)}}))
    groups = list(scenario.groups(None, 0))
    assert [s.id for g in groups for s in g.samples] == ["a", "c"]
    errors = {place.removeprefix(str(path)): reason for g in groups for place, reason in g.errors.items()}
    assert errors[":2"] == f"id 'a' stands at {path}:1 too"
    assert errors[":3"] == "target 'three' is none of its options"
    assert len(errors) == 3
    assert [s.id for g in scenario.groups(1, 1) for s in g.samples] == ["c"]
