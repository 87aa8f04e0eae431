"""Scenarios made of others: wrong pictures, rotated options."""

import pytest

from argus.core.errors import RecipeError
from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.metrics.accuracy import Accuracy, AccuracyOptions
from argus.evaluation.results import summarise
from argus.evaluation.scenarios.circular import rotations

OF = {"world/objects": {"size": 32, "questions": 3, "families": ["colour"]}}


def groups(name, samples=12, options=None):
    return list(build("scenario", name, {"of": OF, **(options or {})}).groups(samples, 0))


def test_every_question_gets_the_neighbours_picture():
    plain = list(build("scenario", "world", {"domain": "objects", **OF["world/objects"]}).groups(12, 0))
    wrong = groups("wrong_picture")
    pictures = [g.samples[0].images()[0].tobytes() for g in plain]
    asked = [g for g in wrong if g.samples]
    for n, group in enumerate(asked):
        assert [s.id for s in group.samples] == [s.id for s in plain[n].samples]
        assert {s.images()[0].tobytes() for s in group.samples} == {pictures[n ^ 1]}  # 0 <-> 1, 2 <-> 3, ...
        assert [s.target for s in group.samples] == [s.target for s in plain[n].samples]
    left = [g for g in wrong if not g.samples]
    assert len(left) == len(plain) % 2
    assert all("no neighbour" in reason for g in left for reason in g.errors.values())


def test_rotations_show_every_option_in_every_place():
    turned = rotations(Sample("a", [], "red", ["red", "green", "blue"]))
    assert [s.options for s in turned] == [["red", "green", "blue"], ["green", "blue", "red"], ["blue", "red", "green"]]
    assert [s.id for s in turned] == ["a", "a/r1", "a/r2"]
    assert {s.metadata["item"] for s in turned} == {"a"}
    assert {s.target for s in turned} == {"red"}
    free = Sample("a", [], "red")
    assert [s.id for s in rotations(free)] == ["a"]


def test_an_item_counts_when_every_rotation_is_right():
    def record(n, item, value):
        common = {"kind": "answer", "blind": False, "family": "f", "domain": "d", "options": ["a", "b"], "seconds": 0.0}
        return {"id": f"{n}", "group": item, "item": item, "values": {"accuracy": value}, **common}

    rows = [record(0, "x", 1.0), record(1, "x", 0.0), record(2, "y", 1.0), record(3, "y", 1.0)]
    result = summarise(rows, {"accuracy": Accuracy(AccuracyOptions())})
    assert result.value("accuracy") == 0.75
    assert result.value("accuracy", "item") == 0.5
    assert result.measurements["accuracy"]["item"].n == 2


def test_always_the_same_letter_earns_nothing_in_circles():
    asked = [build("instruction", "options").apply(s) for g in groups("circular") for s in g.samples]
    first = [s.target == "A" for s in asked]
    items = {}
    for right, sample in zip(first, asked, strict=True):
        items[sample.metadata["item"]] = items.get(sample.metadata["item"], True) and right
    assert sum(first) / len(first) == pytest.approx(1 / 4, abs=0.01)  # 4 colours to choose from: each stands first once
    assert not any(items.values())


def test_the_inner_scenario_is_checked_first():
    with pytest.raises(RecipeError, match="colour"):
        build("scenario", "circular", {"of": {"world/objects": {"families": ["color"]}}})
