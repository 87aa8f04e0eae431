"""Sensors: twins of one scene, truth per pixel, six question types for all four."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from argus.core.registry import build
from argus.world.domain import Drawing
from argus.world.sensors import BRIGHTER, LEVELS, MEASURED, MOST, SENSORS, UNKNOWN

PERCEPTION = ("existence", "counting", "position", "description")


def drawn(index: int, sensor: str, families: tuple[str, ...] = (), count: int = 6, **options: Any) -> Drawing:
    return build("domain", "sensors", {"sensor": sensor, **options}).draw("test", index, 96, count, families)


def test_pictures_of_one_index_are_twins() -> None:
    """Things, places and what is asked about them do not depend on the sensor; pixels do."""
    for index in range(10):
        twins = [drawn(index, sensor, PERCEPTION) for sensor in SENSORS]
        assert len({t.scene.objects for t in twins}) == len({t.scene.levels for t in twins}) == 1
        assert all(t.questions == twins[0].questions for t in twins)
        assert len({t.pixels.tobytes() for t in twins}) == 4


@pytest.mark.parametrize("sensor", SENSORS)
def test_all_six_types_are_asked(sensor: str) -> None:
    domain = build("domain", "sensors", {"sensor": sensor})
    for family in domain.families:
        found = [q for i in range(20) for q in domain.draw("test", i, 64, 2, (family,)).questions]
        assert len(found) >= 15
        assert {len(q.options) for q in found} == ({2} if family in PERCEPTION else {4})


def test_pixels_are_what_was_measured() -> None:
    """In the middle of a lone thing stands its level; X-ray adds up where things overlap."""
    checked = 0
    for index in range(40):
        for sensor in LEVELS:
            drawing = drawn(index, sensor, count=0)
            domain = build("domain", "sensors", {"sensor": sensor})
            truth = domain.maps(drawing.scene, 96)
            values, owner = truth[MEASURED[sensor]], truth["segmentation"]
            noise = 10 if sensor == "thermal" else 0
            assert np.abs(drawing.pixels[:, :, 0].astype(int) - values).max() <= noise
            levels = dict(drawing.scene.levels)[sensor]
            for number, level in enumerate(levels, start=1):
                inside = values[owner == number]
                if sensor == "X-ray":
                    assert inside.max() >= level
                    assert inside.max() <= min(255, sum(levels))
                else:
                    assert (inside == level).any()  # edges mix with what lies beneath
                checked += 1
    assert checked > 200


def test_near_things_lie_in_front_and_may_be_dark() -> None:
    for index in range(20):
        bright, dark = drawn(index, "depth", count=0), drawn(index, "depth", count=0, near="dark")
        levels = dict(bright.scene.levels)["depth"]
        assert list(levels) == sorted(levels)  # things from back to front
        assert (bright.pixels.astype(int) + dark.pixels == 255).all()
        asked = drawn(index, "depth", ("sensory",), 6, near="dark")
        for q in asked.questions:
            if q.text.startswith("Why"):  # what is brighter is further away, which is to say further back
                named = sorted(
                    (q.text.index(f" {t.shape}"), n) for n, t in enumerate(asked.scene.objects.things) if f" {t.shape}" in q.text
                )
                assert q.answer == "it is further away"
                assert named[0][1] < named[1][1]


def test_sensory_answers_follow_from_the_sensor() -> None:
    for sensor in SENSORS:
        for index in range(60):
            drawing = drawn(index, sensor, ("sensory",), 4)
            for q in drawing.questions:
                if q.text.startswith("Why"):
                    assert q.answer == BRIGHTER[sensor]
                    named = [t.shape for t in drawing.scene.objects.things if f" {t.shape}" in q.text]
                    levels = {
                        t.shape: v
                        for t, v in zip(drawing.scene.objects.things, drawing.scene.measured(sensor), strict=True)
                    }  # fmt: skip
                    first = min(named, key=q.text.index)
                    assert levels[first] == max(levels[name] for name in named)
                elif "measured" in q.text or "bright" in q.text:
                    assert q.answer == MEASURED[sensor]
                elif MOST.get(sensor, "no sensor") in q.text:
                    levels = drawing.scene.measured(sensor)
                    assert q.answer == drawing.scene.objects.things[levels.index(max(levels))].shape
                else:
                    assert q.answer == UNKNOWN


def test_contextual_answers_are_the_outermost_thing() -> None:
    checked = 0
    for index in range(80):
        drawing = drawn(index, "thermal", ("contextual",), 4)
        for q in drawing.questions:
            things = drawing.scene.objects.things
            side = next(s for s in ("left", "right", "top", "bottom") if s in q.text)
            axis = 0 if side in ("left", "right") else 1
            best = (max if side in ("right", "bottom") else min)(things, key=lambda t: t.centre[axis])
            assert q.answer == best.shape
            checked += 1
    assert checked > 100


def test_shares_and_tags() -> None:
    domain = build("domain", "sensors", {"others": 0.1, "tag": True})
    drawings = [domain.draw("train", i, 32, 2) for i in range(600)]
    assert sum(d.scene.sensor != "RGB" for d in drawings) == pytest.approx(60, abs=25)
    assert all(q.text.startswith(f"This is a {d.scene.sensor} picture. ") for d in drawings for q in d.questions)
