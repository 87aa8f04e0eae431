"""Objects: one to six coloured shapes on varied grounds.

A scene is a list of things (colour, shape, texture, size, place) and a ground, in integer units of 1/960 of the side, so that
the same scene renders at any size and nothing hinges on the last bit of a float. Things may overlap lightly: the boxes of two
share at most an eighth of the smaller one. With `piled`, every second thing is moved onto the one before it, so that what lies in
front of what can be asked (`order`). With `companions`, shapes go together: circle and square, triangle and star, cross and
diamond, ring and heart of one colour; what is left of the scene stays as it is drawn without the option.

Questions choose the answer first, uniformly among the options, and then what to ask, so that no answer is likelier than
another and a model that sees no picture stays at chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageChops
from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES, Domain, Question
from argus.world.object_layout import apart, clear, piled, together
from argus.world.object_questions import ASK
from argus.world.object_scene import JITTER, UNIT, ObjectsScene, Thing, in_pixels, rgb
from argus.world.raster import coverage, ground_pattern, noise_tile, paint, pile, stamp

DIAMETERS = {"small": (120, 150), "medium": (190, 230), "large": (280, 340)}  # 12-15, 19-23, 28-34 px of 96


class ObjectsOptions(Options):
    """How full and how varied the scenes are."""

    min_objects: int = Field(1, ge=1, le=6, description="fewest things in a scene")
    max_objects: int = Field(6, ge=1, le=6, description="most things in a scene")
    ground: str = Field("varied", pattern="^(plain|varied)$", description="plain, or with gradients, stripes and noise")
    companions: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the scenes in which every leading shape has its companion of the same colour; in the others none "
        "has. By lot when not given",
    )
    scale: float = Field(1.0, ge=0.1, le=1, description="share of their usual size that things have; small ones need zooming")
    piled: float = Field(
        0.0, ge=0, le=0.75, description="share of the smaller of two boxes by which every second thing lies on the one before it"
    )

    @model_validator(mode="after")
    def _ordered(self) -> ObjectsOptions:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} exceeds max_objects {self.max_objects}")
        return self


class Objects(Domain):
    """Coloured shapes on varied grounds."""

    Options = ObjectsOptions
    options: ObjectsOptions
    name = "objects"
    families = (
        "existence", "colour", "shape", "size", "texture", "count", "position", "relation", "nearest", "comparison",
        "odd_one_out", "locate", "caption",
    )  # fmt: skip
    more_families = ("order",)

    def scene(self, rng: np.random.Generator) -> ObjectsScene:
        dice = Dice(rng, 160)
        low, high = self.options.min_objects, self.options.max_objects
        wanted = low + dice(high - low + 1)
        # A third of the scenes repeats a colour, a third a shape, so that counts above one are frequent; in one scene
        # of six all things but one share it, so that there is an odd one out.
        repeat, shared_colour, shared_shape = dice(6), dice(len(COLOURS)), dice(len(SHAPES))
        odd = dice(wanted) if dice(2) else -1
        things: list[Thing] = []
        for _ in range(12 * wanted):
            if len(things) == wanted:
                break
            colour, shape = dice(len(COLOURS)), dice(len(SHAPES))
            same = len(things) != odd if odd >= 0 else dice(2)
            if repeat in (0, 1) and same:
                colour = shared_colour
            if repeat in (2, 3) and same:
                shape = shared_shape
            size = SIZES[dice(3)]
            small, large = DIAMETERS[size]
            d = round(self.options.scale * (small + dice(large - small + 1)))
            thing = Thing(
                COLOURS[colour], SHAPES[shape], TEXTURES[dice(4)], size, dice(UNIT - d), dice(UNIT - d), d,
                5 * (dice(5) - 2), (dice(2 * JITTER + 1) - JITTER, dice(2 * JITTER + 1) - JITTER, dice(2 * JITTER + 1) - JITTER),
            )  # fmt: skip
            if all(clear(thing, other) for other in things):
                things.append(thing)
        base = 205 + dice(45) if dice(2) else 12 + dice(55)
        ground = tuple(min(255, max(0, base + dice(21) - 10)) for _ in range(3))
        varied = self.options.ground == "varied"
        scene = ObjectsScene(
            tuple(things),
            ground,  # type: ignore[arg-type]
            pattern=dice(4) if varied else 0,
            variant=dice(16),
            noise=dice(16) if varied else 0,
        )
        if self.options.piled:
            scene = replace(scene, things=piled(scene.things, self.options.piled))
        share = self.options.companions
        if share is None:
            return scene
        return replace(scene, things=(together if dice(1000) < 1000 * share else apart)(scene.things))

    def render(self, scene: ObjectsScene, size: int) -> np.ndarray:
        picture = Image.new("RGB", (size, size), scene.ground)
        if scene.pattern:
            picture = ImageChops.add(picture, ground_pattern(scene.pattern, scene.variant, size), 1, -32)
        for thing in scene.things:
            shape, rotation, place, d = in_pixels(thing, size)
            body, marks = stamp(shape, thing.texture, d, rotation)
            paint(picture, place, body, marks, rgb(thing))
        if scene.noise >= 8:
            picture = ImageChops.add(picture, noise_tile(scene.noise - 8, size), 1, -9)
        return np.asarray(picture)

    def maps(self, scene: ObjectsScene, size: int) -> dict[str, np.ndarray]:
        owner, layer = pile([in_pixels(t, size) for t in scene.things], size)
        classes = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES}
        tables = {head: [0, *(1 + names.index(getattr(t, head)) for t in scene.things)] for head, names in classes.items()}
        return {"segmentation": owner, "depth": layer, **{head: np.array(ids)[owner] for head, ids in tables.items()}}

    def boxes(self, scene: ObjectsScene) -> tuple[tuple[float, float, float, float], ...]:
        return tuple(t.box for t in scene.things)

    def dense(self, scene: ObjectsScene, grid: int) -> dict[str, np.ndarray]:
        boxes = [(t.shape, t.rotation, t.x / UNIT, t.y / UNIT, t.d / UNIT) for t in scene.things]
        top = coverage(boxes, grid)  # (grid, grid): 1 + index of the thing that covers most of the cell, 0 for ground

        def ids(names: Sequence[str], attribute: str) -> np.ndarray:
            table = [0] + [1 + names.index(getattr(t, attribute)) for t in scene.things]
            return np.array(table, dtype=np.int64)[top]

        return {
            "colour": ids(COLOURS, "colour"),
            "shape": ids(SHAPES, "shape"),
            "texture": ids(TEXTURES, "texture"),
            "size": ids(SIZES, "size"),
            "character": np.zeros((grid, grid), dtype=np.int64),
        }

    def describe(self, scene: ObjectsScene) -> str:
        parts = []
        for t in sorted(scene.things, key=lambda t: (t.centre[1], t.centre[0])):
            x, y = (int(100 * v) for v in t.centre)
            parts.append(f"{t.size} {t.colour} {t.texture} {t.shape} at {x} {y}")
        return "; ".join(parts)

    def questions(
        self, scene: ObjectsScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 2))
        numbers = range(self.options.min_objects, self.options.max_objects + 1)
        return self.collect(dice, count, families, lambda family: ASK[family](scene, dice, numbers))
