"""LVLM-eHub (arXiv 2306.09265) on the world: six capabilities with exact answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from argus.core.errors import ArgusError
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.lvlm_ehub_world import CAPABILITIES, CELL, reached


@pytest.fixture(scope="module")
def drawn() -> list:
    options = {"pictures": 4, "questions": 4}
    return [s for g in build("scenario", "lvlm_ehub_world", options).groups(220, 3) for s in g.samples]


def test_all_six_capabilities_are_asked_with_exact_answers(drawn) -> None:
    branches = Counter(b for s in drawn for b in s.metadata["branches"])
    assert set(branches) == set(CAPABILITIES)
    assert {s.metadata["family"] for s in drawn} == {name for names in CAPABILITIES.values() for name in names}
    assert all(s.target in s.options for s in drawn if s.options)
    assert len({s.id for s in drawn}) == len(drawn)


def test_the_drawn_truth_is_the_scenes(drawn) -> None:
    for s in drawn:
        scenes = s.metadata.get("scenes", [])
        if s.metadata["family"] == "attributes":
            (thing,) = scenes[0].things
            words = set(s.messages[0].text().rstrip("?").split())
            assert (s.target == "yes") == ({thing.colour, thing.shape} <= words)
            assert {thing.colour, thing.shape} & words  # what is wrong is half right
        if s.metadata["family"] == "typical colours":
            assert len(s.images()) == 4
            assert {scene.things[0].shape for scene in scenes} <= set(s.messages[0].text().rstrip("?").split())
        if s.metadata["family"] == "plans":
            start, goal = ((t.x // CELL, t.y // CELL) for t in scenes[0].things)
            assert [plan for plan in s.options if reached(start, plan) == goal] == [s.target]
            assert all(0 <= place < 3 for place in (*start, *goal))


def test_most_pictures_have_the_typical_colour_and_no_answer_is_likelier() -> None:
    scenario = build("scenario", "lvlm_ehub_world", {"sets": ["typical colours", "plans", "attributes"], "pictures": 10})
    samples = [s for g in scenario.groups(450, 0) for s in g.samples]
    typical = [s for s in samples if s.metadata["family"] == "typical colours"]
    for sample in typical:
        assert sum(scene.things[0].colour == sample.target for scene in sample.metadata["scenes"]) == 7
    for family, most in (("plans", 1.3 / 4), ("attributes", 1.3 / 2), ("typical colours", 1.8 / 10)):
        counted = Counter(s.target for s in samples if s.metadata["family"] == family)
        assert max(counted.values()) <= most * counted.total()


def test_a_part_of_the_sets_may_be_asked_and_all_seeds_differ() -> None:
    scenario = build("scenario", "lvlm_ehub_world", {"sets": ["attributes"]})
    first, again, other = ([s.id for g in scenario.groups(5, seed) for s in g.samples] for seed in (0, 0, 1))
    assert first == again
    assert not set(first) & set(other)
    alone, among = (
        build("scenario", "lvlm_ehub_world", {"sets": sets}).groups(n, 0)
        for sets, n in ((["plans"], 3), (["shapes", "plans"], 6))
    )
    plans = [s.id for g in among for s in g.samples if s.metadata["family"] == "plans"]
    assert [s.id for g in alone for s in g.samples] == plans  # a set's questions do not depend on the other sets
    with pytest.raises(ValidationError, match="there is no set 'colors'"):
        type(scenario).Options(sets=["colors"])
    with pytest.raises(ArgusError, match="cannot be shared"):
        list(build("scenario", "lvlm_ehub_world").groups(3, 0))


def test_worded_answers_keep_what_is_meant(model, processor) -> None:
    given = EvaluationOptions(
        scenario={"lvlm_ehub_world": {"sets": ["attributes", "shapes", "plans"]}},
        inferencer={"worded": {"of": "prefix"}},
        metrics=["meant", "word_match", {"same_verdict": {"of": ["word_match"]}}],
        samples=24,
    )
    records = MemoryRecords()
    found = evaluate(model, processor, given, run_part=records, progress=False)
    rows = [r for r in records.rows if r["kind"] == "answer"]
    assert len({r["form"] for r in rows}) >= 4
    assert all(len(r["meant"]) == 1 + (r["form"] == "hedged") for r in rows)
    assert all(m in r["options"] for r in rows for m in r["meant"])
    assert found.value("meant") == np.mean([r["meant"] == [r["target"]] for r in rows])
    assert found.value("same_verdict", "word_match") == found.value("same_verdict")
