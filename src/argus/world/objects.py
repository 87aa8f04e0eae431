"""Objects: one to six coloured shapes on varied grounds.

A scene is a list of things (colour, shape, texture, size, place) and a ground, in integer units of 1/960 of the side, so that
the same scene renders at any size and nothing hinges on the last bit of a float. Things may overlap lightly: the boxes of two
share at most an eighth of the smaller one.

Questions choose the answer first, uniformly among the options, and then what to ask, so that no answer is likelier than
another and a model that sees no picture stays at chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops
from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.core.sample import box_text
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES, Domain, Question
from argus.world.raster import coverage, ground_pattern, noise_tile, paint, stamp

UNIT = 960  # relative units per side
DIAMETERS = {"small": (120, 150), "medium": (190, 230), "large": (280, 340)}  # 12-15, 19-23, 28-34 px of 96
PALETTE = {
    "red": (215, 35, 35),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (240, 215, 40),
    "orange": (245, 135, 25),
    "purple": (130, 45, 165),
    "pink": (250, 145, 190),
    "brown": (120, 75, 35),
    "cyan": (50, 205, 215),
    "gray": (128, 128, 128),
}
JITTER = 10  # a colour varies by at most this per channel; named colours are at least four times further apart
PLACES = ("top left", "top right", "bottom left", "bottom right")


class ObjectsOptions(Options):
    """How full and how varied the scenes are."""

    min_objects: int = Field(1, ge=1, le=6, description="fewest things in a scene")
    max_objects: int = Field(6, ge=1, le=6, description="most things in a scene")
    ground: str = Field("varied", pattern="^(plain|varied)$", description="plain, or with gradients, stripes and noise")

    @model_validator(mode="after")
    def _ordered(self) -> ObjectsOptions:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} exceeds max_objects {self.max_objects}")
        return self


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing; x, y are its box's top left corner and d its side, in 1/960 of the picture's."""

    colour: str
    shape: str
    texture: str
    size: str
    x: int
    y: int
    d: int
    rotation: int
    jitter: tuple[int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x + self.d / 2) / UNIT, (self.y + self.d / 2) / UNIT

    @property
    def box(self) -> tuple[float, float, float, float]:
        return self.x / UNIT, self.y / UNIT, (self.x + self.d) / UNIT, (self.y + self.d) / UNIT


@dataclass(frozen=True, slots=True)
class ObjectsScene:
    """Things from back to front, and the ground (base colour, pattern kind and variant, noise)."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]
    pattern: int
    variant: int
    noise: int


class Objects(Domain):
    """Coloured shapes on varied grounds."""

    Options = ObjectsOptions
    options: ObjectsOptions
    name = "objects"
    families = (
        "existence", "colour", "shape", "size", "texture", "count", "position", "relation", "nearest", "comparison",
        "odd_one_out", "locate", "caption",
    )  # fmt: skip

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
            d = small + dice(large - small + 1)
            thing = Thing(
                COLOURS[colour], SHAPES[shape], TEXTURES[dice(4)], size, dice(UNIT - d), dice(UNIT - d), d,
                5 * (dice(5) - 2), (dice(2 * JITTER + 1) - JITTER, dice(2 * JITTER + 1) - JITTER, dice(2 * JITTER + 1) - JITTER),
            )  # fmt: skip
            if all(_clear(thing, other) for other in things):
                things.append(thing)
        base = 205 + dice(45) if dice(2) else 12 + dice(55)
        ground = tuple(min(255, max(0, base + dice(21) - 10)) for _ in range(3))
        varied = self.options.ground == "varied"
        return ObjectsScene(
            tuple(things),
            ground,  # type: ignore[arg-type]
            pattern=dice(4) if varied else 0,
            variant=dice(16),
            noise=dice(16) if varied else 0,
        )

    def render(self, scene: ObjectsScene, size: int) -> np.ndarray:
        picture = Image.new("RGB", (size, size), scene.ground)
        if scene.pattern:
            picture = ImageChops.add(picture, ground_pattern(scene.pattern, scene.variant, size), 1, -32)
        for thing in scene.things:
            d = max(6, round(thing.d * size / UNIT))
            body, marks = stamp(thing.shape, thing.texture, d, thing.rotation)
            paint(picture, (round(thing.x * size / UNIT), round(thing.y * size / UNIT)), body, marks, _rgb(thing))
        if scene.noise >= 8:
            picture = ImageChops.add(picture, noise_tile(scene.noise - 8, size), 1, -9)
        return np.asarray(picture)

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
        return self.collect(dice, count, families, lambda family: ASK[family](self, scene, dice))


def _clear(a: Thing, b: Thing) -> bool:
    """Whether two boxes share at most an eighth of the smaller one."""
    width = min(a.x + a.d, b.x + b.d) - max(a.x, b.x)
    height = min(a.y + a.d, b.y + b.d) - max(a.y, b.y)
    return width <= 0 or height <= 0 or 8 * width * height <= min(a.d, b.d) ** 2


@lru_cache(4096)
def _shade(colour: str, jitter: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(min(255, max(0, v + j)) for v, j in zip(PALETTE[colour], jitter, strict=True))  # type: ignore[return-value]


def _rgb(thing: Thing) -> tuple[int, int, int]:
    return _shade(thing.colour, thing.jitter)


# -- questions: each returns None where the scene has nothing to ask of its kind


def _reference(scene: ObjectsScene, thing: Thing, hide: str = "") -> str | None:
    """The shortest phrase that only this thing fits, without naming the attribute `hide`."""
    for used in (("colour", "shape"), ("size", "colour", "shape"), ("texture", "colour", "shape")):
        names = [a for a in used if a != hide]
        key = [getattr(thing, a) for a in names]
        if sum([getattr(t, a) for a in names] == key for t in scene.things) == 1:
            words = " ".join(key)
            return words if "shape" in names else f"{words} thing"
    return None


def _referable(scene: ObjectsScene, dice: Dice, hide: str = "") -> tuple[Thing, str] | None:
    """A random thing that can be referred to, with its phrase."""
    for thing in dice.shuffled(scene.things):
        phrase = _reference(scene, thing, hide)
        if phrase:
            return thing, phrase
    return None


def _choices(answer: str, names: Sequence[str], dice: Dice, count: int = 4) -> tuple[str, ...]:
    """The answer among `count` names, in random order."""
    others = dice.shuffled([n for n in names if n != answer])[: count - 1]
    return tuple(dice.shuffled([answer, *others]))


def _existence(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    here = {(t.colour, t.shape) for t in scene.things}
    yes = dice(2) == 1
    trap = False
    if yes:
        colour, shape = dice.pick(sorted(here))
    else:
        # Half of the absent ones are traps: colour and shape are both in the scene, but not on one thing.
        crossed = sorted({(a[0], b[1]) for a in here for b in here} - here)
        trap = bool(crossed) and dice(2) == 1
        if trap:
            colour, shape = dice.pick(crossed)
        else:
            colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
            while (colour, shape) in here:
                colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
    article = "an" if colour[0] in "aeiou" else "a"
    text = dice.pick(
        (
            f"Is there {article} {colour} {shape}?",
            f"Can you see {article} {colour} {shape}?",
            f"Does the picture show {article} {colour} {shape}?",
        )
    )
    boxes = tuple(t.box for t in scene.things if (t.colour, t.shape) == (colour, shape))
    return Question("existence", text, "yes" if yes else "no", ("yes", "no"), boxes, trap=trap)


def _attribute(attribute: str, names: Sequence[str], templates: Sequence[str]) -> Callable[..., Question | None]:
    def ask(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
        found = _referable(scene, dice, hide=attribute)
        if found is None:
            return None
        thing, phrase = found
        answer = getattr(thing, attribute)
        options = _choices(answer, names, dice)
        return Question(attribute, dice.pick(templates).format(phrase), answer, options, (thing.box,))

    return ask


def _count(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    kind = dice(3)
    if kind == 0:
        low, high = domain.options.min_objects, domain.options.max_objects
        options = tuple(str(n) for n in range(low, high + 1))
        text = dice.pick(("How many things are there?", "Count the things in the picture.", "What is the number of things?"))
        return Question("count", text, str(len(scene.things)), options, tuple(t.box for t in scene.things))
    attribute, names = ("colour", COLOURS) if kind == 1 else ("shape", SHAPES)
    counts = Counter(getattr(t, attribute) for t in scene.things)
    by_count: dict[int, list[str]] = {}
    for name in names:
        by_count.setdefault(counts[name], []).append(name)
    if len(by_count) < 3:
        return None  # two possible answers would be too easy to guess
    answer = dice.pick(sorted(by_count))
    name = dice.pick(by_count[answer])
    noun = f"{name} things" if attribute == "colour" else ("crosses" if name == "cross" else f"{name}s")
    text = dice.pick((f"How many {noun} are there?", f"Count the {noun}.", f"What is the number of {noun}?"))
    boxes = tuple(t.box for t in scene.things if getattr(t, attribute) == name)
    return Question("count", text, str(answer), tuple(str(n) for n in sorted(by_count)), boxes)


def _position(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    found = _referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    x, y = thing.centre
    if min(abs(x - 0.5), abs(y - 0.5)) < 0.05:
        return None  # on a border between quarters
    answer = PLACES[2 * (y > 0.5) + (x > 0.5)]
    text = dice.pick(
        (f"In which quarter is the {phrase}?", f"Where is the {phrase}?", f"Which corner is the {phrase} nearest to?")
    )
    return Question("position", text, answer, tuple(dice.shuffled(PLACES)), (thing.box,))


def _pair(scene: ObjectsScene, dice: Dice) -> tuple[Thing, str, Thing, str] | None:
    named = [(t, p) for t in dice.shuffled(scene.things) if (p := _reference(scene, t))]
    return (*named[0], *named[1]) if len(named) > 1 else None


def _relation(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    pair = _pair(scene, dice)
    if pair is None:
        return None
    a, first, b, second = pair
    axis = dice(2)
    if abs(a.centre[axis] - b.centre[axis]) < 0.1:
        return None
    words = (("left of", "right of"), ("above", "below"))[axis]
    holds = words[0] if a.centre[axis] < b.centre[axis] else words[1]
    yes = dice(2) == 1
    word = holds if yes else words[1 - words.index(holds)]
    text = dice.pick((f"Is the {first} {word} the {second}?", f"Is it true that the {first} is {word} the {second}?"))
    return Question("relation", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box), trap=not yes)


def _nearest(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    found = _referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    others = sorted(
        ((t.centre[0] - thing.centre[0]) ** 2 + (t.centre[1] - thing.centre[1]) ** 2, t.colour, t.box)
        for t in scene.things
        if t is not thing
    )
    colours = sorted({c for _, c, _ in others})
    # The runner-up of another colour must be clearly further: 1.2 times the distance.
    rivals = [d for d, c, _ in others if c != others[0][1]] if others else []
    if not rivals or min(rivals) < 1.44 * others[0][0]:
        return None
    options = tuple(dice.shuffled(colours))
    text = dice.pick(
        (
            f"What colour is the thing nearest to the {phrase}?",
            f"Which colour has the closest neighbour of the {phrase}?",
        )
    )
    return Question("nearest", text, others[0][1], options, (thing.box, others[0][2]))


def _comparison(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    yes = dice(2) == 1
    if dice(2):
        pair = _pair(scene, dice)
        if pair is None or pair[0].size == pair[2].size:
            return None
        a, first, b, second = pair
        if SIZES.index(a.size) < SIZES.index(b.size):
            a, first, b, second = b, second, a, first
        if not yes:
            first, second = second, first
        text = dice.pick((f"Is the {first} larger than the {second}?", f"Is the {first} bigger than the {second}?"))
        return Question("comparison", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box))
    counts = Counter(t.colour for t in scene.things)
    pairs = [(m, n) for m in sorted(counts) for n in sorted(counts) if counts[m] > counts[n]]
    if not pairs:
        return None
    more, fewer = dice.pick(pairs)
    if not yes:
        more, fewer = fewer, more
    text = dice.pick(
        (f"Are there more {more} things than {fewer} things?", f"Are {more} things more frequent than {fewer} things?")
    )
    boxes = tuple(t.box for t in scene.things if t.colour in (more, fewer))
    return Question("comparison", text, "yes" if yes else "no", ("yes", "no"), boxes)


def _odd_one_out(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    attribute, names = (("colour", COLOURS), ("shape", SHAPES))[dice(2)]
    counts = Counter(getattr(t, attribute) for t in scene.things)
    if len(scene.things) < 3 or sorted(counts.values()) != [1, len(scene.things) - 1]:
        return None
    odd = next(t for t in scene.things if counts[getattr(t, attribute)] == 1)
    answer = getattr(odd, attribute)
    text = dice.pick(
        (
            f"One thing has another {attribute} than all others. Which {attribute}?",
            f"What {attribute} is the odd one out?",
        )
    )
    return Question("odd_one_out", text, answer, _choices(answer, names, dice), (odd.box,))


def _locate(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    found = _referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    text = dice.pick(
        (
            f"Give the box of the {phrase}.",
            f"Locate the {phrase} with a box.",
            f"Where exactly is the {phrase}? Answer with a box.",
        )
    )
    return Question("locate", text, box_text(thing.box), (), (thing.box,))


def _caption(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    things = sorted(scene.things, key=lambda t: (t.centre[1], t.centre[0]))
    facts = tuple(
        f"a {t.size} {t.colour} {t.texture} {t.shape} at the {PLACES[2 * (t.centre[1] > 0.5) + (t.centre[0] > 0.5)]}"
        for t in things
    )
    text = dice.pick(("Describe the picture in detail.", "What does the picture show? List everything."))
    return Question("caption", text, "; ".join(facts), (), tuple(t.box for t in things), facts=facts)


ASK: dict[str, Callable[[Objects, ObjectsScene, Dice], Question | None]] = {
    "existence": _existence,
    "colour": _attribute("colour", COLOURS, ("What colour is the {}?", "Which colour has the {}?", "Name the colour of the {}.")),
    "shape": _attribute("shape", SHAPES, ("What shape is the {}?", "Which shape has the {}?", "Name the shape of the {}.")),
    "size": _attribute("size", SIZES, ("How large is the {}?", "What size is the {}?")),
    "texture": _attribute(
        "texture", TEXTURES, ("What pattern does the {} have?", "Is the {} plain, striped, dotted or checkered?")
    ),
    "count": _count,
    "position": _position,
    "relation": _relation,
    "nearest": _nearest,
    "comparison": _comparison,
    "odd_one_out": _odd_one_out,
    "locate": _locate,
    "caption": _caption,
}
