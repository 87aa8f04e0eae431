"""Sensors: the same things as colour, heat, distance and density show them.

A scene of the domain `objects` gets three more quantities per thing, each with levels that are far apart, and a sensor that
shows one:

    RGB      colours, as `objects` draws them
    thermal  temperature: bright is hot; the ground is lukewarm and mottled
    depth    distance: near is bright (or dark, `near: dark`); the ground comes nearer towards the bottom
    X-ray    density, summed where things overlap, on black: bright is dense

Shapes and places are the same for all four, and nothing else is: colours are seen by the first alone. Scene and perception
questions do not depend on the sensor, so that pictures of one index are twins.

Question types are those of SPARK (arXiv 2408.12114). Perception is yes or no: `existence`, `counting`, `position`,
`description`. Reasoning has four options: `contextual` asks what follows from the scene, `sensory` what the sensor tells.
Sensory questions ask what was measured, why one thing is brighter, and which thing has most of it - or that this cannot be
known, where another sensor shows it. No question names the sensor; `tag` does, in front of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import SHAPES, Domain, Question
from argus.world.object_scene import PALETTE, UNIT, ObjectsScene, Thing
from argus.world.objects import Objects, ObjectsOptions
from argus.world.raster import noise_tile, stamp

SENSORS = ("RGB", "thermal", "depth", "X-ray")
MEASURED = dict(zip(SENSORS, ("colour", "temperature", "distance", "density"), strict=True))
BRIGHTER = dict(zip(SENSORS, ("its colour is lighter", "it is hotter", "it is nearer", "it is denser"), strict=True))
MOST = {"thermal": "hottest", "depth": "nearest", "X-ray": "densest"}
UNKNOWN = "unknown"
LEVELS = {"thermal": (110, 180, 250), "depth": (130, 185, 240), "X-ray": (90, 150, 210)}  # of the things, from least to most
LUKEWARM, FAR, NEAR = 55, 20, 90  # grounds: temperature, distance at the top and at the bottom
APART = 40  # grey levels by which the lighter of two colours is clearly the lighter one
THINGS = {"min_objects": 2, "max_objects": 3, "ground": "plain"}


class SensorsOptions(Options):
    """Which sensor, and how scenes are drawn."""

    sensor: Literal["any", "RGB", "thermal", "depth", "X-ray"] = Field("any", description="sensor of all scenes; any by lot")
    others: float = Field(0.75, ge=0, le=1, description="share of the scenes that are not RGB, where the sensor is drawn")
    near: Literal["bright", "dark"] = Field("bright", description="how a depth picture shows what is near")
    tag: bool = Field(False, description="name the sensor in front of each question")


@dataclass(frozen=True, slots=True)
class SensorsScene:
    """Things, and what each sensor measures of them.

    Args:
        levels: sensor -> grey level of each thing, for all but RGB; in depth, `near: bright` understood.
    """

    objects: ObjectsScene
    sensor: str
    near: str
    levels: tuple[tuple[str, tuple[int, ...]], ...]

    def measured(self, sensor: str) -> tuple[int, ...]:
        """What a sensor measures of each thing; of RGB the lightness of its colour."""
        if sensor == "RGB":
            return tuple(round(float(np.dot(PALETTE[t.colour], (0.299, 0.587, 0.114)))) for t in self.objects.things)
        return dict(self.levels)[sensor]


class Sensors(Domain):
    """The objects as four sensors show them."""

    Options = SensorsOptions
    options: SensorsOptions
    name = "sensors"
    families = ("existence", "counting", "position", "description", "contextual", "sensory")

    def __init__(self, options: SensorsOptions) -> None:
        super().__init__(options)
        self.objects = Objects(ObjectsOptions.model_validate(THINGS))

    def scene(self, rng: np.random.Generator) -> SensorsScene:
        objects, dice = self.objects.scene(rng), Dice(rng, 40)
        shapes = dice.shuffled(SHAPES)  # all different, so that a shape names a thing; plain, so that a colour has one lightness
        things = tuple(replace(t, shape=shape, texture="plain") for t, shape in zip(objects.things, shapes, strict=False))
        levels = {sensor: dice.shuffled(of)[: len(things)] for sensor, of in LEVELS.items()}
        levels["depth"].sort()  # things stand from back to front
        other = dice(1000) < 1000 * self.options.others
        drawn = SENSORS[1 + dice(len(SENSORS) - 1)] if other else "RGB"
        sensor = drawn if self.options.sensor == "any" else self.options.sensor
        measured = tuple((name, tuple(of)) for name, of in levels.items())
        return SensorsScene(replace(objects, things=things), sensor, self.options.near, measured)

    def render(self, scene: SensorsScene, size: int) -> np.ndarray:
        if scene.sensor == "RGB":
            return self.objects.render(scene.objects, size)
        grey = self.measured(scene, size)[scene.sensor]
        if scene.sensor == "depth" and scene.near == "dark":
            grey = 255 - grey
        if scene.sensor == "thermal":
            grey = (grey + np.asarray(noise_tile(scene.objects.variant % 8, size))[:, :, 0] - 9).clip(0, 255)
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)

    def measured(self, scene: SensorsScene, size: int) -> dict[str, np.ndarray]:
        """What the other sensors measure at each pixel: int64 (size, size), 0 to 255."""
        rows = np.linspace(FAR, NEAR, size).round().astype(np.int64)[:, None]
        maps = {
            "thermal": np.full((size, size), LUKEWARM, dtype=np.int64),
            "depth": np.broadcast_to(rows, (size, size)).copy(),
            "X-ray": np.zeros((size, size), dtype=np.int64),
        }
        for number, thing in enumerate(scene.objects.things):
            x, y, d = round(thing.x * size / UNIT), round(thing.y * size / UNIT), max(6, round(thing.d * size / UNIT))
            body = stamp(thing.shape, "plain", d, thing.rotation)[0]
            mask = Image.new("L", (size, size), 0)
            mask.paste(255, (x, y), body)
            alpha = np.asarray(mask, dtype=np.int64)  # (size, size): how much of a pixel the thing covers, of 255
            for sensor, level in ((s, of[number]) for s, of in scene.levels):
                under = maps[sensor]
                maps[sensor] = under + (alpha * (level if sensor == "X-ray" else level - under)) // 255
        return {sensor: values.clip(0, 255) for sensor, values in maps.items()}

    def maps(self, scene: SensorsScene, size: int) -> dict[str, np.ndarray]:
        named = {MEASURED[sensor]: values for sensor, values in self.measured(scene, size).items()}
        return {**self.objects.maps(scene.objects, size), **named}

    def boxes(self, scene: SensorsScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(scene.objects)

    def dense(self, scene: SensorsScene, grid: int) -> dict[str, np.ndarray]:
        truth = self.objects.dense(scene.objects, grid)
        if scene.sensor != "RGB":  # colours and textures are not to be seen
            seen = truth["shape"] > 0
            truth.update({head: np.where(seen, -1, 0).astype(np.int64) for head in ("colour", "texture")})
        return truth

    def describe(self, scene: SensorsScene) -> str:
        count = len(scene.objects.things)
        levels = [", ".join(f"{MEASURED[s]} {scene.measured(s)[n]}" for s in LEVELS) for n in range(count)]
        things = (f"{t.size} {t.shape} at {int(100 * t.centre[0])} {int(100 * t.centre[1])}" for t in scene.objects.things)
        parts = "; ".join(f"{thing}: {of}" for thing, of in zip(things, levels, strict=True))
        return f"{scene.sensor} picture; {parts}"

    def questions(
        self, scene: SensorsScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 2))
        asked = self.collect(dice, count, families, lambda family: ASK[family](scene, dice))
        tag = f"This is a {scene.sensor} picture. " if self.options.tag else ""
        return [replace(question, text=tag + question.text) for question in asked]


def _verdict(family: str, text: str, true: bool, things: tuple[Thing, ...] = ()) -> Question:
    return Question(family, text, "yes" if true else "no", ("yes", "no"), tuple(t.box for t in things), trap=not true)


def _existence(scene: SensorsScene, dice: Dice) -> Question:
    here = [t.shape for t in scene.objects.things]
    true = dice(2) == 1
    shape = dice.pick(here if true else [s for s in SHAPES if s not in here])
    text = dice.pick(("Is there a {}?", "Can you see a {}?", "Does the picture show a {}?")).format(shape)
    return _verdict("existence", text, true, tuple(t for t in scene.objects.things if t.shape == shape))


def _counting(scene: SensorsScene, dice: Dice) -> Question:
    count, true = len(scene.objects.things), dice(2) == 1
    number = count if true else 5 - count  # two or three
    text = dice.pick(("Are there {} things?", "Does the picture show {} things?", "Can you see {} things?")).format(number)
    return _verdict("counting", text, true, scene.objects.things)


def _position(scene: SensorsScene, dice: Dice) -> Question | None:
    a, b = dice.shuffled(scene.objects.things)[:2]
    axis = dice(2)
    if abs(a.centre[axis] - b.centre[axis]) < 0.1:
        return None
    words = (("left of", "right of"), ("above", "below"))[axis]
    true = dice(2) == 1
    word = words[(a.centre[axis] > b.centre[axis]) == true]
    return _verdict("position", f"Is the {a.shape} {word} the {b.shape}?", true, (a, b))


def _description(scene: SensorsScene, dice: Dice) -> Question:
    here = dice.shuffled([t.shape for t in scene.objects.things])
    absent = [s for s in SHAPES if s not in here]
    true = dice(2) == 1
    pair = dice.shuffled([here[0], here[1] if true else dice.pick(absent)])
    text = dice.pick(("Does the picture show a {} and a {}?", "Are there both a {} and a {}?")).format(*pair)
    return _verdict("description", text, true, tuple(t for t in scene.objects.things if t.shape in pair))


def _contextual(scene: SensorsScene, dice: Dice) -> Question | None:
    """Which thing something that comes in from a side meets first: the one that is furthest on that side."""
    axis, last = dice(2), dice(2)
    things = sorted(scene.objects.things, key=lambda t: t.centre[axis], reverse=bool(last))
    if abs(things[0].centre[axis] - things[1].centre[axis]) < 0.1:
        return None
    side = (("left", "right"), ("top", "bottom"))[axis][last]
    text = dice.pick(("What is met first from the {}?", "Coming from the {}, which thing is first?")).format(side)
    return Question("contextual", text, things[0].shape, _shapes(scene, things[0].shape, dice), (things[0].box,))


def _shapes(scene: SensorsScene, answer: str, dice: Dice, count: int = 4) -> tuple[str, ...]:
    """The answer among `count` shapes, those of the scene first to be taken."""
    others = [t.shape for t in scene.objects.things if t.shape != answer]
    others += dice.shuffled([s for s in SHAPES if s != answer and s not in others])
    return tuple(dice.shuffled([answer, *others[: count - 1]]))


def _sensory(scene: SensorsScene, dice: Dice) -> Question | None:
    kind, levels = dice(3), scene.measured(scene.sensor)
    if kind == 0:
        text = dice.pick(("What was measured here?", "What do bright and dark show here?"))
        return Question("sensory", text, MEASURED[scene.sensor], tuple(dice.shuffled([*MEASURED.values()])))
    things = scene.objects.things
    if kind == 1:
        reasons = BRIGHTER if scene.near == "bright" else {**BRIGHTER, "depth": "it is further away"}
        sign = -1 if scene.near == "dark" and scene.sensor == "depth" else 1
        pairs = [(a, b) for a, b in permutations(range(len(things)), 2) if sign * (levels[a] - levels[b]) >= APART]
        if not pairs:
            return None
        a, b = dice.pick(pairs)
        text = f"Why is the {things[a].shape} brighter than the {things[b].shape}?"
        return Question("sensory", text, reasons[scene.sensor], tuple(dice.shuffled([*reasons.values()])), (things[a].box,))
    # One of four questions asks for what another sensor would show; a photograph shows none of it.
    known = scene.sensor in MOST and dice(4) > 0
    asked = scene.sensor if known else dice.pick([s for s in MOST if s != scene.sensor])
    best = things[int(np.argmax(levels))]
    answer = best.shape if known else UNKNOWN
    options = tuple(dice.shuffled([*_shapes(scene, best.shape, dice, 3), UNKNOWN]))
    text = dice.pick(("Which thing is the {}?", "What is the {} thing?"))
    return Question("sensory", text.format(MOST[asked]), answer, options, (best.box,) if known else ())


ASK: dict[str, Callable[[SensorsScene, Dice], Question | None]] = {
    "existence": _existence,
    "counting": _counting,
    "position": _position,
    "description": _description,
    "contextual": _contextual,
    "sensory": _sensory,
}
