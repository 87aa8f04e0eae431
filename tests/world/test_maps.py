"""Which thing owns a pixel and what lies on what: read off the rendered pixels, and written out."""

import zlib
from dataclasses import replace

import numpy as np

from argus.world.domain import COLOURS, SHAPES
from argus.world.object_scene import Thing
from argus.world.objects import Objects, ObjectsOptions
from argus.world.raster import pile, stamp

PILED = Objects(ObjectsOptions(min_objects=2, max_objects=4, piled=0.5))


def test_a_thing_owns_the_pixels_that_take_its_colour() -> None:
    domain, seen = Objects(ObjectsOptions(max_objects=4, ground="plain", piled=0.4)), 0
    for index in range(25):
        scene = domain.scene(domain.rng("test", index))
        plain = replace(scene, things=tuple(replace(t, texture="plain", jitter=(0, 0, 0)) for t in scene.things))
        owner = domain.maps(plain, 96)["segmentation"]
        for number, thing in enumerate(plain.things, start=1):
            pair = [replace(thing, colour=colour) for colour in ("red", "cyan")]  # 165 apart in the red channel
            shown = [
                domain.render(replace(plain, things=(*plain.things[: number - 1], one, *plain.things[number:])), 96).astype(int)
                for one in pair
            ]
            share = np.abs(shown[0] - shown[1])[..., 0] / 165
            assert (owner[share > 0.9] == number).all()
            assert (owner[share < 0.1] != number).all()
            seen += int((share > 0.9).sum())
    assert seen > 5000


def test_a_layer_is_one_above_the_highest_that_it_hides() -> None:
    bodies = [("square", 0, (10, 10), 30), ("circle", 0, (60, 60), 20), ("star", 10, (30, 20), 24), ("ring", 0, (45, 30), 40)]
    owner, layer = pile(bodies, 96)  # type: ignore[arg-type]
    expected_owner, expected_layer = np.zeros((2, 96, 96), dtype=int)
    for number, (shape, rotation, (x, y), d) in enumerate(bodies, start=1):  # type: ignore[misc]
        solid = np.asarray(stamp(shape, "plain", d, rotation)[0]) > 127
        pixels = [(y + i, x + j) for i, j in zip(*np.nonzero(solid), strict=True)]
        highest = max(expected_layer[p] for p in pixels)
        for p in pixels:
            expected_owner[p], expected_layer[p] = number, highest + 1
    assert (owner == expected_owner).all()
    assert (layer == expected_layer).all()
    assert layer.max() == 3  # the ring lies on the star, the star on the square


def test_classes_are_those_of_the_owner() -> None:
    scene = PILED.scene(PILED.rng("test", 3))
    maps = PILED.maps(scene, 96)
    for number, thing in enumerate(scene.things, start=1):
        mine = maps["segmentation"] == number
        assert mine.any()
        assert (maps["colour"][mine] == 1 + COLOURS.index(thing.colour)).all()
        assert (maps["shape"][mine] == 1 + SHAPES.index(thing.shape)).all()
    for head in ("depth", "colour", "shape", "texture", "size"):
        assert ((maps[head] == 0) == (maps["segmentation"] == 0)).all()


def test_every_second_thing_lies_on_the_one_before() -> None:
    moved = 0
    for index in range(40):
        scene = PILED.scene(PILED.rng("test", index))
        a, b = scene.things[:2] if len(scene.things) > 1 else (None, None)
        if a is None or b is None:
            continue
        shared = [min(p + a.d, q + b.d) - max(p, q) for p, q in ((a.x, b.x), (a.y, b.y))]
        moved += min(shared) > 0 and shared[0] * shared[1] >= 0.5 * min(a.d, b.d) ** 2
    assert moved > 30


def test_what_lies_in_front_is_asked_where_it_can_be_seen() -> None:
    answers = []
    for index in range(150):
        drawing = PILED.draw("test", index, 96, 4, ("order",))
        maps = PILED.maps(drawing.scene, 96)
        for question in drawing.questions:
            first, second = (
                next(i for i, t in enumerate(drawing.scene.things) if set(cue.split()) <= _words(t)) for cue in question.cues
            )
            front, back = max(first, second), min(first, second)
            hidden = PILED.maps(replace(drawing.scene, things=(drawing.scene.things[back],)), 96)["segmentation"] > 0
            assert (hidden & (maps["segmentation"] == front + 1)).sum() >= 24
            in_front = (first > second) == ("in front of" in question.text)
            assert question.answer == ("yes" if in_front else "no")
            answers.append(question.answer)
    assert len(answers) > 100
    assert 0.4 < answers.count("yes") / len(answers) < 0.6


def _words(thing: Thing) -> set[str]:
    return {thing.size, thing.texture, thing.colour, thing.shape}


def test_scenes_and_questions_are_what_they_were_before_things_could_be_piled() -> None:
    domain, told = Objects(ObjectsOptions()), 0
    for index in range(20):
        drawing = domain.draw("test", index)
        told = zlib.crc32(drawing.pixels.tobytes() + repr([(q.text, q.answer) for q in drawing.questions]).encode(), told)
    assert "order" not in domain.families
    assert told == DIGEST


DIGEST = 652398151
